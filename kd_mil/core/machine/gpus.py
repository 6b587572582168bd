"""Whether PyTorch finds a GPU: its driver is asked first, because importing PyTorch takes seconds."""

import ctypes
import sys
from pathlib import Path

AMD = Path("/dev/kfd")
"""Compute device of AMD's driver, which PyTorch's builds for ROCm call `cuda`, too."""


def cuda_available() -> bool:
    """Whether PyTorch can compute on `cuda`; where no driver is, PyTorch is not imported to know."""
    if not has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def has_driver() -> bool:
    """Whether a driver is there without which PyTorch finds no GPU; True where this cannot be told, as on Windows."""
    if sys.platform != "linux":
        return sys.platform != "darwin"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return AMD.exists()
    return True
