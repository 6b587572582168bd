"""A method or a network out of a checkpoint, ready to predict."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from torch import Tensor

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.base.method import Method
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.prediction.card import ModelCard, is_allowed, read_card, refuse_foreign_targets, without_downloads
from kd_mil.prediction.moved_targets import with_targets_of_today


def checkpoint_path(given: str | None) -> Path:
    """The checkpoint file asked for; of a run's directory, the best one."""
    if given is None:
        raise UserError("ckpt is not set: give the .ckpt file, or the directory, of a finished run")
    path = Path(given)
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def built_method(checkpoint: dict[str, Any], path: Path, trust: bool) -> Method:
    """The method that the card of a checkpoint describes, with the checkpoint's weights, in eval mode.

    Raises:
        UserError: the card names what may not be run, or the weights are not those of the method, or not finite.
    """
    card = checkpoint["model_card"]
    config = with_targets_of_today(card["method"])
    if not trust:
        refuse_foreign_targets(config, path)
    try:
        method = instantiate(without_downloads(config), _convert_="all")(**card["model_inputs"])
        method.load_state_dict(checkpoint["state_dict"])
    except (
        TypeError,
        ValueError,
        LookupError,
        RuntimeError,
        MemoryError,
    ) as error:  # what constructors and load_state_dict raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit this version of kd_mil: {reason}") from error
    for name, weights in method.named_parameters():
        if not weights.isfinite().all():
            raise UserError(
                f"checkpoint {path}: weights {name} are NaN or infinite: its training failed, choose another"
            )
    return method.eval()


def load_method(path: Path, trust: bool = False) -> tuple[BagMethod, ModelCard]:
    """The method of a checkpoint with its weights, in eval mode, and its card.

    Raises:
        UserError: no such checkpoint, one that prediction cannot use, or one that names what may not be run.
    """
    checkpoint = read_checkpoint(path)
    if segments(checkpoint["model_card"]):
        raise UserError(f"checkpoint {path} holds a method that segments images: use kd_mil.segment")
    card = read_card(checkpoint, path)
    method = built_method(checkpoint, path, trust)
    if not isinstance(method, BagMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}: prediction is for methods on bags")
    return method, card


def segments(card: Any) -> bool:
    """Whether a model card names a method whose outputs are masks; looked up, not built."""
    method = with_targets_of_today(card.get("method")) if isinstance(card, dict) else None
    target = method.get("_target_") if isinstance(method, dict) else None
    if not isinstance(target, str) or not is_allowed(target):
        return False
    found = get_object(target)
    return isinstance(found, type) and issubclass(found, SegmentationMethod)


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
    checkpoint = read_checkpoint(path)
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
    height, width = card["model_inputs"]["instance_shape"][1:]
    source, run = dict(card.get("instance_source") or {}), str(card.get("experiment", ""))
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
