"""What goes into an extraction beside slides, and what comes out for each of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.planning import PlannedSlide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.stain import Macenko

Status = Literal["written", "kept", "failed", "pending"]


class Encoder(Protocol):
    """Turns tiles into features, as `kd_mil.models.encoders.tile_encoder.TileEncoder` does."""

    device: torch.device
    num_features: int
    identity: dict[str, Any]
    transform: dict[str, Any]

    def __call__(self, tiles: Tensor) -> Tensor:
        """Encode tiles (N, H, W, 3) uint8 to (N, D) on the device."""
        ...


def made_by(encoder: Encoder | None, stain: Macenko | None) -> dict[str, Any]:
    """What makes the features, as the files of an extraction and its settings say it.

    Raises:
        UserError: a normalisation of tiles that nobody encodes.
    """
    if stain is not None and encoder is None:
        raise UserError("stain= changes features and there are none: give encoder=..., or stain=null")
    identity, transform = (encoder.identity, encoder.transform) if encoder else (None, None)
    return {"encoder": identity, "transform": transform, "stain": stain and stain.attributes()}


@dataclass(frozen=True)
class Outcome:
    """The result for one slide."""

    entry: SlideEntry
    status: Status
    """`kept`: its file existed already, or another process wrote it in the meantime; `pending`: another one has it in
    hand, or its shard was not run."""
    path: Path
    tiles: int = 0
    mpp: float | None = None
    """µm per level-0 pixel where a setting or the list says it, None where the slide does."""
    message: str = ""
    """Why it failed, or what makes its tiles doubtful."""
    rejected: int | None = None
    """Tiles that touch tissue and have too little of it; None where a file of an earlier version does not say."""
    tissue: float | None = None
    """Share of the scanned area that is tissue; None likewise."""


@dataclass
class SlideInProgress:
    """A slide whose features are being computed."""

    plan: PlannedSlide
    features: np.ndarray
    """(N, D) float16, filled as they come."""
    missing: int
