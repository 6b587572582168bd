"""Checkpoints are written whole or not at all, and read without running code from them."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside their destination and renamed: a killed run leaves no torn file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read into memory of the CPU, from where Lightning moves all to each rank's own device."""
        return read_checkpoint(path)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Load a checkpoint of this project onto the CPU, wherever it was saved, with `weights_only=True`.

    Raises:
        UserError: no such file, a truncated one, one that holds anything but tensors and plain containers, or the
            checkpoint of another project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist: give the path of a .ckpt file of a run")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} holds more than tensors and plain data, it is refused: {_first_line(error)}"
        ) from error
    except Exception as error:  # whatever the parser of pickles stumbles over
        raise UserError(f"checkpoint {path} is damaged or no checkpoint at all: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "model_card" not in checkpoint:
        raise UserError(f"checkpoint {path} was not written by kd_mil: it has no model card")
    return checkpoint


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
