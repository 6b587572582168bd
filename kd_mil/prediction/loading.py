"""A method or a network out of a checkpoint, ready to predict."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_mil.cards.card import ModelCard, instance_shape, is_allowed, read_card, refuse_odd_source
from kd_mil.cards.loading import built_method
from kd_mil.cards.moved_targets import with_targets_of_today
from kd_mil.cards.recipes import find
from kd_mil.core.checkpoints import read_with_card
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.segmentation_method import SegmentationMethod


def load_method(path: Path, trust: bool = False) -> tuple[BagMethod, ModelCard]:
    """The method of a checkpoint with its weights, in eval mode, and its card.

    Raises:
        UserError: no such checkpoint, one that prediction cannot use, or one that names what may not be run.
    """
    checkpoint = read_with_card(path)
    if is_made_by(checkpoint["model_card"], SegmentationMethod):
        raise UserError(f"checkpoint {path} holds a method that segments images: use kd_mil.segment")
    card = read_card(checkpoint, path)
    method = built_method(checkpoint, path, trust)
    if not isinstance(method, BagMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}: prediction is for methods on bags")
    return method, card


def is_made_by(card: Any, base: type) -> bool:
    """Whether a model card names a method of a class, such as those whose outputs are masks; looked up, not built."""
    target = with_targets_of_today(card["method"])["_target_"]
    if not is_allowed(target):
        return False
    found = find(target)
    return isinstance(found, type) and issubclass(found, base)


@dataclass(frozen=True)
class Network:
    """A trained network that segments, with how its maps are read."""

    predict: Callable[[Tensor], Tensor]
    """Stored images (B, C, H, W) to maps (B, H, W) of probabilities."""
    window: tuple[int, int]
    """(height, width) of the images it was trained on."""
    blur: float
    """Standard deviation in pixels of the Gaussian that smooths a map."""
    threshold: float
    """Probability from which on a pixel is positive, in (0, 1)."""
    source: dict[str, Any]
    """How its training images were made."""
    run: str
    """Experiment it was trained in."""
    checkpoint: str
    """The first 16 digits of the file's SHA-256."""
    role: str


def load_network(
    path: Path,
    role: str | None = None,
    *,
    tuned: bool = False,
    threshold: float | None = None,
    device: torch.device | None = None,
    trust: bool = False,
) -> Network:
    """A network of a checkpoint of a method that segments.

    Args:
        path: the checkpoint.
        role: whose; None = the last of the method, which is the student where there is one.
        tuned: take blur and threshold that validation chose, not those of the configuration.
        threshold: replaces either.
        device: None = CPU.
        trust: build whatever the checkpoint names.

    Raises:
        UserError: no such checkpoint, one of another method, one that names what may not be run, or no such role.
    """
    checkpoint = read_with_card(path)
    card = checkpoint["model_card"]
    method = built_method(checkpoint, path, trust)
    if not isinstance(method, SegmentationMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}, which gives no masks: use kd_mil.predict")
    role = role or method.roles[-1]
    one_of("role", role, method.roles)
    method.to(device or torch.device("cpu"))
    blur, cut = method.reading.blur, method.reading.threshold
    if tuned:
        blur, cut = method.operating_points[method.roles.index(role)].tolist()
    shape = instance_shape(card["model_inputs"], path)
    if len(shape) != 3:
        raise UserError(f"checkpoint {path}: its model card describes no images, but instances of shape {shape}")
    _, height, width = shape
    source, run = card.get("instance_source", {}), card.get("experiment", "")
    refuse_odd_source(source, path)
    return Network(
        predictor(method, role, path), (height, width), blur, threshold or cut, source, run, file_digest(path), role
    )


def predictor(method: SegmentationMethod, role: str, path: Path) -> Callable[[Tensor], Tensor]:
    """Stored images (B, C, H, W) to the maps (B, H, W) of a role."""

    def predict(images: Tensor) -> Tensor:
        maps = method.predict_maps(images.to(method.device))
        if role not in maps:
            raise UserError(f"role={role}: it had not begun to learn when {path} was written")
        if not maps[role].isfinite().all():
            raise UserError(f"checkpoint {path}: probabilities of {role} are not finite: no mask")
        return maps[role]

    return predict
