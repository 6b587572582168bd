"""Networks whose calls PyTorch compiles: the modules, and their names in checkpoints, stay what they are."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import nn

from kd_mil.core.errors import UserError

SETTING = "trainer.compile=true"
PARTS = ("encoder", "segmenter")
"""Arguments of methods that make what is compiled."""
COMPILERS = {"CXX": ("g++", "clang++"), "CC": ("gcc", "clang", "cc")}
"""By the variable that names another."""
Backend = str | Callable[..., Any]
INDUCTOR = "inductor"


def require_compiler(on_gpu: bool) -> None:
    """Refuse to compile where the tools for it are not installed: a C++ compiler, for GPUs Triton and a C compiler.

    Raises:
        UserError: naming what is missing.
    """
    variable = "CC" if on_gpu else "CXX"
    names = (os.environ[variable],) if variable in os.environ else COMPILERS[variable]
    if not any(shutil.which(name) for name in names):
        raise UserError(f"{SETTING}: no compiler ({' or '.join(names)}) is installed: install one, or leave it out")
    if on_gpu and find_spec("triton") is None:
        raise UserError(f"{SETTING}: Triton is not installed: pip install triton, or leave it out")


def compile_parts(method: partial[Any], backend: Backend = INDUCTOR) -> partial[Any]:
    """The factory of a method whose encoders, or segmenters, are compiled once they are called.

    Args:
        method: keeps the factories of its networks as keyword arguments.
        backend: of `torch.compile`.

    Raises:
        UserError: it has no such part.
    """
    made = {name: partial(_compiled, method.keywords[name], backend) for name in PARTS if name in method.keywords}
    if not made:
        raise UserError(f"{SETTING}: {method.func.__name__} has no encoder and no segmenter of its own; leave it out")
    return partial(method, **made)


def _compiled(factory: Callable[..., nn.Module], backend: Backend, *arguments: Any, **settings: Any) -> nn.Module:
    network = factory(*arguments, **settings)
    network.compile(backend=backend, dynamic=True)  # bags have many sizes, and a resumed run starts with another
    return network


def call_as_written(module: nn.Module) -> None:
    """Undo the compilation of a module and all that it contains."""
    for one in module.modules():
        one._compiled_call_impl = None
