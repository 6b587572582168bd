"""Checkpoints are written whole or not at all, and read without running code from them."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.exported import read_exported

CARD: dict[str, type] = {"method": dict, "model_inputs": dict, "class_names": list}
"""What every model card holds."""
OPTIONAL: dict[str, type] = {"instance_source": dict, "experiment": str, "select": str}
TRAINING: dict[str, type] = {
    **{"epoch": int, "global_step": int, "loops": dict, "callbacks": dict},
    **{"optimizer_states": list, "lr_schedulers": list},
}
"""What a checkpoint holds from which training resumes."""


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

    Or the `.safetensors` file of an exported model, which has the card and the weights alone.

    Raises:
        UserError: no such file, a truncated one, one that holds anything but tensors and plain containers, or the
            checkpoint of another project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist: give the path of a .ckpt file of a run")
    try:
        weights_alone = path.suffix == ".safetensors"
        checkpoint = read_exported(path) if weights_alone else torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} holds more than tensors and plain data, it is refused: {_first_line(error)}"
        ) from error
    except Exception as error:  # whatever the parser of pickles stumbles over
        raise UserError(f"checkpoint {path} is damaged or no checkpoint at all: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "model_card" not in checkpoint:
        raise UserError(f"checkpoint {path} was not written by kd_mil: it has no model card")
    _check_state(checkpoint["state_dict"], path)
    if not isinstance(checkpoint["model_card"], dict):
        raise UserError(f"checkpoint {path}: its model card is no table: train it again with this version")
    return checkpoint


def read_with_card(path: str | os.PathLike) -> dict[str, Any]:
    """`read_checkpoint` of a run, whose model card is whole.

    Raises:
        UserError: as `read_checkpoint`, or a card that lacks a part, or has one of another kind.
    """
    checkpoint = read_checkpoint(path)
    card = checkpoint["model_card"]
    for name, kind in (CARD | OPTIONAL).items():
        if not isinstance(card.get(name), kind) and not (name in OPTIONAL and name not in card):
            raise UserError(f"checkpoint {path}: its model card has no {name}: train it again with this version")
    if not isinstance(card["method"].get("_target_"), str):
        raise UserError(f"checkpoint {path}: its model card does not name the class of its method")
    names = card["class_names"]
    if len(names) < 2 or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError(f"checkpoint {path}: its model card does not name its classes: {str(names)[:60]}")
    return checkpoint


def require_training_state(checkpoint: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse a checkpoint that holds weights alone.

    Raises:
        UserError: naming what is missing, or of another kind.
    """
    for name, kind in TRAINING.items():
        if not isinstance(checkpoint.get(name), kind) or isinstance(checkpoint.get(name), bool):
            raise UserError(f"checkpoint {path} has no {name} of the training: nothing can resume from it")


def _check_state(state: Any, path: Path) -> None:
    entries = state.items() if isinstance(state, Mapping) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in entries):
        raise UserError(f"checkpoint {path} is damaged: its state_dict holds other things than named tensors")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
