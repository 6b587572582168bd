"""The device that a command asks for."""

import platform

import torch

from kd_mil.core.errors import UserError


def use_accelerator(name: str) -> None:
    """Refuse a GPU where there is none, before data are read for it; on one, matrix products in float32 use TF32.

    Their factors are then rounded to 10 bits of mantissa and sums are float32, several times as fast as without:
    https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html

    Raises:
        UserError: there is none.
    """
    if name not in ("gpu", "cuda"):
        return
    if not torch.cuda.is_available():
        raise UserError(f"trainer.accelerator={name}: PyTorch finds no GPU; take trainer=cpu")
    torch.set_float32_matmul_precision("high")


def usable_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        UserError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is no device: cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: PyTorch finds no GPU; take device=cpu")
    return device


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
