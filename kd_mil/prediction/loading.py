"""A method or a network out of a checkpoint, ready to predict."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import Method
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.prediction.card import ModelCard, read_card, refuse_foreign_targets, without_downloads
from kd_mil.prediction.moved_targets import with_targets_of_today


def checkpoint_path(given: str | None) -> Path:
    """The checkpoint file asked for; of a run's directory, the best one."""
    if given is None:
        raise UserError("ckpt is not set: give the .ckpt file, or the directory, of a finished run")
    path = Path(given)
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def load_method(path: Path, trust: bool) -> tuple[BagMethod, ModelCard]:
    """The method of a checkpoint with its weights, in eval mode, and its card.

    Raises:
        UserError: no such checkpoint, one that prediction cannot use, or one that names what may not be run.
    """
    checkpoint = read_checkpoint(path)
    card = read_card(checkpoint, path)
    method = built(checkpoint, path, trust)
    if not isinstance(method, BagMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}: prediction is for methods on bags")
    return method.eval(), card


def built(checkpoint: dict[str, Any], path: Path, trust: bool) -> Method:
    """The method that the card of a checkpoint describes, with the checkpoint's weights.

    Raises:
        UserError: the card names what may not be run, or the weights are not those of the method.
    """
    card = checkpoint["model_card"]
    config = with_targets_of_today(card["method"])
    if not trust:
        refuse_foreign_targets(config, path)
    try:
        method = instantiate(without_downloads(config), _convert_="all")(**card["model_inputs"])
        method.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:  # what constructors and load_state_dict raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit this version of kd_mil: {reason}") from error
    return method


def usable_device(name: str) -> torch.device:
    """The device of this name; UserError where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is no device: cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: PyTorch finds no GPU; take device=cpu")
    return device


@dataclass(frozen=True)
class Network:
    """A trained role, ready to be asked."""

    predict: Callable[[Tensor], Tensor]
    """Stored images (B, C, H, W) to maps (B, H, W)."""
    window: tuple[int, int]
    """(height, width) of the images it was trained on."""
    blur: float
    threshold: float
    source: dict[str, Any]
    """How its training images were made."""
    run: str


def load_network(plain: dict[str, Any]) -> Network:
    """The role asked for, of the checkpoint.

    Raises:
        UserError: no such checkpoint, one of another method, one that names what may not be run, or no such role.
    """
    path = checkpoint_path(plain["ckpt"])
    checkpoint = read_checkpoint(path)
    card = checkpoint["model_card"]
    method = built(checkpoint, path, plain["trust"])
    if not isinstance(method, SegmentationMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}, which gives no masks: use kd_mil.predict")
    role = plain["role"] or method.roles[-1]
    if role not in method.roles:
        raise UserError(f"role={role}: the checkpoint has {', '.join(method.roles)}")
    device = usable_device(plain["device"])
    method.eval().to(device)
    blur, threshold = method.reading.blur, method.reading.threshold
    if plain["tuned"]:
        blur, threshold = method.operating_points[method.roles.index(role)].tolist()

    def predict(images: Tensor) -> Tensor:
        maps = method.predict_maps(images.to(device))
        if role not in maps:
            raise UserError(f"role={role}: it had not begun to learn when {path} was written")
        return maps[role]

    height, width = card["model_inputs"]["instance_shape"][1:]
    threshold = plain["threshold"] or threshold
    source = dict(card.get("instance_source") or {})
    return Network(predict, (height, width), blur, threshold, source, str(card.get("experiment", "")))
