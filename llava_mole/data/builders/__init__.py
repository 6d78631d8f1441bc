"""Builders of the quickstart's three sets, from data that installs with Python packages.

``quickstart.build_all`` makes all of them; each module builds one.
"""

from llava_mole.data.builders.store import Sizes

__all__ = ["Sizes"]
