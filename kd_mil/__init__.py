"""Weakly supervised knowledge distillation for computational pathology."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kd-mil")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"
