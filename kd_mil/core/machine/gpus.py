"""Whether PyTorch finds a GPU: its driver is asked first, because importing PyTorch takes seconds."""

import ctypes
import os
import sys
from pathlib import Path

AMD = Path("/dev/kfd")
"""Compute device of AMD's driver, which PyTorch's builds for ROCm call `cuda`, too."""
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Read by PyTorch whenever it is asked for GPUs; `1` since Lightning was imported."""


def cuda_available() -> bool:
    """Whether PyTorch can compute on `cuda`; where no driver is, PyTorch is not imported to know."""
    if not has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def stop_asking_nvml() -> None:
    """Where no driver is, PyTorch asks the CUDA runtime for GPUs, not NVIDIA's management library, as Lightning wants.

    Optimisers ask at every step: a library that is missing takes 0.2 ms to look for, the runtime 3 µs.
    """
    if not has_driver():
        os.environ[NVML_CHECK] = "0"


def has_driver() -> bool:
    """Whether a driver is there without which PyTorch finds no GPU; True where this cannot be told, as on Windows."""
    if sys.platform != "linux":
        return sys.platform != "darwin"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return AMD.exists()
    return True
