"""Tests mirror the package; ``tests.tiny`` has the tiny models."""

import llava_mole  # noqa: F401  (before transformers: makes torchvision importable)
