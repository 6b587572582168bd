"""Modules of the originals, imported from where a reader has checked them out; none of their code is in this project.

with checkout("/somewhere/CLAM") as module:
    model = module("models.model_clam").CLAM_SB()
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from types import ModuleType
from unittest.mock import MagicMock


@contextmanager
def checkout(folder: str, *stand_ins: str) -> Iterator[Callable[[str], ModuleType]]:
    """Import from a checkout for a while, and forget its modules afterwards: several have a package `models`.

    Args:
        folder: of the checkout.
        stand_ins: modules that its code imports and the comparison does not use, such as loggers.
    """
    known = set(sys.modules)
    sys.path.insert(0, folder)
    sys.modules.update({name: MagicMock() for name in stand_ins})
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - known:
            if name in stand_ins or lies_in(sys.modules[name], Path(folder).resolve()):
                del sys.modules[name]


def lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module, or a package without a file of its own, comes from below a folder."""
    folders = getattr(module, "__path__", None)  # of some of PyTorch's it is a number
    places = [getattr(module, "__file__", None), *(folders if isinstance(folders, Iterable) else ())]
    return any(Path(place).resolve().is_relative_to(folder) for place in places if isinstance(place, str))


def commit(folder: str) -> str:
    """Commit of a checkout, or `unknown` where it is a plain folder."""
    found = run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"
