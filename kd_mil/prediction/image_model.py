"""A classifier of images out of a checkpoint, and its word on a slide from those on the pieces of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kd_mil.cards.loading import built_method
from kd_mil.core.checkpoints import read_with_card
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.core.run_files import write_json
from kd_mil.methods.base.image_method import ImageMethod
from kd_mil.models.outputs import Prediction, max_pooled
from kd_mil.slides.tiles.pieces import Pieces, Sections, pieces_of

Pooling = Literal["max", "mean"]
POOLINGS = ("max", "mean")


@dataclass(frozen=True)
class ImageModel:
    """The network of one role of a method on images, in evaluation mode."""

    method: ImageMethod
    role: str
    downsample: float
    """Side lengths of originals are divided by this much."""
    pieces: Pieces | None
    """How slides are cut into images; None where it was not trained on slides."""
    original_mpp: float | None
    """µm per pixel of originals; None where nobody noted it."""
    pooling: Pooling
    class_names: list[str]
    experiment: str
    checkpoint: str
    """The first 16 digits of the file's SHA-256."""

    @property
    def mpp(self) -> float | None:
        """µm per pixel of what the network sees."""
        return None if self.original_mpp is None else self.original_mpp * self.downsample

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability of the second of two classes from which on it is decided."""
        return {self.role: 0.5}

    @torch.inference_mode()
    def probs_of(self, images: Tensor) -> Tensor:
        """Class probabilities (B, C) float64, on the CPU, of images (B, 3, H, W) uint8 of one size."""
        network, _ = self.method.classifiers()[self.role]
        return network(images.to(self.method.device)).logits.double().softmax(1).cpu()

    def predict_pieces(self, pieces: Iterable[Tensor], readings: bool = False) -> dict[str, Prediction]:
        """The word on a slide whose pieces come as (M, 3, H, W) uint8; those of one tensor are of one size."""
        probs = torch.cat([self.probs_of(images) for images in pieces])
        positive = probs[:, 1:].sum(1)
        by_class = probs if probs.shape[1] > 2 else None
        return {self.role: Prediction(pooled(probs, self.pooling), positive, positive, None, by_class)}


def pooled(probs: Tensor, pooling: Pooling) -> Tensor:
    """Probabilities (1, C) of a slide from those of its pieces (N, C).

    Args:
        probs: float64.
        pooling: `max`: as positive as the most positive piece; `mean`: of the pieces.
    """
    return max_pooled(probs, torch.tensor([len(probs)])) if pooling == "max" else probs.mean(0, keepdim=True)


def write_image_model(out: Path, model: ImageModel) -> None:
    """Write `model.json`, which says how the decisions of a folder came about, as for methods on bags."""
    content = {
        "experiment": model.experiment,
        "checkpoint": model.checkpoint,
        "members": 1,
        "class_names": model.class_names,
        "decides": model.role,
        "operating_point": "0.5",
        "thresholds": model.thresholds,
        "case_thresholds": model.thresholds,
        "instance_thresholds": model.thresholds,
        "temperatures": {},
    }
    write_json(out / "model.json", content)


def image_model(
    path: Path,
    *,
    role: str | None = None,
    pooling: Pooling | None = None,
    trust: bool = False,
) -> ImageModel:
    """The network of a role of a checkpoint of a method on images.

    Args:
        path: the checkpoint.
        role: None = the last of the method: the student where there is one.
        pooling: of pieces to slides; None = `mean` of whole sections, `max` of tiles.
        trust: build whatever the checkpoint names.

    Raises:
        UserError: no such checkpoint or role, one that has not learned, or a card that cannot be used.
    """
    checkpoint = read_with_card(path)
    card = checkpoint["model_card"]
    method = built_method(checkpoint, path, trust)
    if not isinstance(method, ImageMethod):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}, which does not classify images")
    role = role or method.roles[-1]
    one_of("role", role, method.roles)
    if not method.has_learned(role):
        raise UserError(f"role={role}: it had not begun to learn when {path} was written")
    inputs = card["model_inputs"]
    source = inputs.get("source")
    pieces = pieces_of(source) if isinstance(source, Mapping) else None
    _, resolution = method.classifiers()[role]
    return ImageModel(
        method=method,
        role=role,
        downsample=float(inputs[f"{resolution}_downsample"]),
        pieces=pieces,
        original_mpp=source.get("mpp") if isinstance(source, Mapping) else None,
        pooling=pooling or ("mean" if isinstance(pieces, Sections) or pieces is None else "max"),
        class_names=card["class_names"],
        experiment=card.get("experiment", ""),
        checkpoint=file_digest(path),
    )
