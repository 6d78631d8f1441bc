"""What has to happen when PEFT or torchvision is imported, without importing them up front.

Both take seconds to import, and most commands (``--help``, ``data``) need neither. So a finder at
the front of ``sys.meta_path`` waits for them: PEFT learns of MoLE as soon as it is there, and
torchvision is helped over the error that it meets beside a CPU build of torch.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType

from llava_mole import _torchvision


def _execute_peft(peft: Callable[[], None]) -> None:
    peft()
    importlib.import_module("llava_mole.tuner")


_EXECUTE = {"peft": _execute_peft, "torchvision": _torchvision.execute}


class _Loader(importlib.abc.Loader):
    """The package's own loader, with its execution handed to one of `_EXECUTE`."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        _EXECUTE[module.__name__](lambda: self._loader.exec_module(module))


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        """The spec of a package that is waited for, with our loader around its own."""
        if name not in _EXECUTE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def wait_for_peft_and_torchvision() -> None:
    """Installs the finder; a PEFT that is imported already learns of MoLE now."""
    sys.meta_path.insert(0, _Finder())
    if "peft" in sys.modules:
        importlib.import_module("llava_mole.tuner")
