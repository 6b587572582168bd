"""What there is to predict: slides, or the feature files of slides, one at a time."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.cards.card import ModelCard, describe
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_identity
from kd_mil.data.samplers import IndexedView
from kd_mil.data.tiles.cache import CutSlide
from kd_mil.data.tiles.files import TilesInSlides
from kd_mil.prediction.tile_geometry import TileGeometry
from kd_mil.slides.formats.reader import BACKENDS, Slide
from kd_mil.slides.overlays.slide_picture import SlidePicture, picture_of
from kd_mil.slides.slide_list import SlideEntry, list_slides, require_files
from kd_mil.slides.tiles.cutting import Cutting, tissue_settings
from kd_mil.slides.tiles.outlines import OutlineSettings
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings

TILES_PER_STEP = 64
NO_TISSUE = "no tissue"


class SlideInstances(NamedTuple):
    """The N instances of one slide, ready for the network."""

    total: int
    """N; 0 for a slide without tissue."""
    batches: Iterable[Tensor]
    """(M, ...) each, N in all."""
    geometry: TileGeometry | None
    """Where they lie; None where nobody knows, and there are no pictures."""
    picture: SlidePicture | None
    """What heat maps are drawn on; None without a geometry."""
    note: str = NO_TISSUE
    """Why there are none, where there are none."""
    slide: Slide | None = None
    """The slide itself, closed, where it is at hand."""
    warnings: Sequence[str] = ()
    """What is worth a look before its prediction is believed."""


class PredictionInput(Protocol):
    """One slide to predict."""

    @property
    def slide_id(self) -> str:
        """Names the files."""
        ...

    @property
    def case_id(self) -> str:
        """Whose it is; its own name where nobody says."""
        ...

    @property
    def label(self) -> str | None:
        """What the list of slides says it is; only shown beside the prediction."""
        ...

    def facts(self) -> list[Any]:
        """Plain values that change when the input does; UserError where it is not there."""
        ...

    def open(self) -> SlideInstances:
        """Find the instances; UserError where a file cannot be read."""
        ...


@dataclass(frozen=True)
class SlideInput:
    """A slide that is cut into tiles as in training; its pixels are read batch by batch and not kept."""

    entry: SlideEntry
    cutting: Cutting
    picture_side: int
    instances_per_step: int | None = None
    num_workers: int = 0

    @property
    def slide_id(self) -> str:
        return self.entry.slide_id

    @property
    def case_id(self) -> str:
        return self.entry.case_id

    @property
    def label(self) -> str | None:
        return self.entry.label

    def facts(self) -> list[Any]:
        require_files(self.entry)
        return [*file_identity(self.entry.path), *self.cutting.reading_of(self.entry)]

    def open(self) -> SlideInstances:
        slide = self.cutting.open(self.entry)
        tiles = self.cutting.cut(slide, self.entry)
        picture = picture_of(slide, None, self.picture_side)
        geometry = TileGeometry(tiles.coords, tiles.tile_size_level0, slide.bounds[:2], mpp=slide.mpp)
        slide.close()
        if not len(tiles.coords):
            return SlideInstances(0, (), None, None, tiles.reason or NO_TISSUE)
        pixels = TilesInSlides([CutSlide(self.entry, tiles, None)], self.cutting)
        steps = torch.arange(len(tiles.coords)).split(self.instances_per_step or TILES_PER_STEP)
        batches = DataLoader(
            IndexedView(pixels.__getitem__),
            sampler=steps,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.num_workers > 0 and torch.cuda.is_available(),
        )
        remarks = tuple(tiles.remarks)
        return SlideInstances(len(tiles.coords), batches, geometry, picture, slide=slide, warnings=remarks)


Config = Mapping[str, Any]


def slide_inputs(config: Config, card: ModelCard) -> Sequence[PredictionInput]:
    """The slides asked for, to be cut as in training.

    Raises:
        UserError: no slides, or a checkpoint that was trained on features.
    """
    if config["slides"] is None:
        raise UserError("give slides=FOLDER (or a CSV), or features=FOLDER for a checkpoint trained on features")
    refuse_features(card)
    return listed_inputs(list_slides(config["slides"]), config, card)


def refuse_features(card: ModelCard) -> None:
    """UserError for a checkpoint that was trained on features: it cannot be asked about slides."""
    if card.source["kind"] != "tiles":
        raise UserError(
            f"the checkpoint was trained on features ({describe(card.source)}): extract them from the slides in the "
            "same way with `python -m kd_mil.extract`, then give features=FOLDER"
        )


def listed_inputs(entries: Sequence[SlideEntry], config: Config, card: ModelCard) -> Sequence[PredictionInput]:
    """The slides of a list, to be cut as in training; UserError for a checkpoint that was trained on features."""
    refuse_features(card)
    tiling, tissue = trained_settings(card, config["outlines"])
    cutting = Cutting(
        tiling=tiling,
        tissue=tissue,
        mpp=config["mpp"] or card.source.get("slide_mpp"),
        backend=config["backend"] or trusted_backend(card),
        mpp_override=override_of(config, card),
    )
    how = config["picture_side"], config["instances_per_step"], config["num_workers"]
    return [SlideInput(entry, cutting, *how) for entry in entries]


def trained_settings(
    card: ModelCard, outlines: str | None = None
) -> tuple[TilingSettings, TissueSettings | OutlineSettings]:
    """How the slides of the training were cut.

    Args:
        card: of the checkpoint.
        outlines: folder of the outlines of new slides, where the tissue of the training was outlined; None = as there.

    Raises:
        UserError: the card says it in words or values that this version does not know, or outlines for a training that
            found tissue by itself.
    """
    try:
        tiling, tissue = TilingSettings(**card.source["tiling"]), tissue_settings(card.source["tissue"])
    except (TypeError, UserError) as error:
        raise UserError(f"the checkpoint does not say how to cut slides: {error}") from error
    if outlines is None:
        return tiling, tissue
    if not isinstance(tissue, OutlineSettings):
        raise UserError(f"outlines={outlines}: the training found tissue by itself (tissue=outlines was not chosen)")
    return tiling, replace(tissue, folder=outlines)


def override_of(config: Config, card: ModelCard) -> float | None:
    """µm per level-0 pixel of all slides, whatever they state: as configured, else as in training, with a warning."""
    trained = card.source.get("slide_mpp_override")
    if config["mpp_override"] is None and trained is not None:
        warnings.warn(
            f"slides are read at mpp_override={trained:g} as in training; mpp_override=0 takes what they state",
            stacklevel=2,
        )
        return trained
    return config["mpp_override"] or None


def trusted_backend(card: ModelCard) -> str:
    """The slide reader of the training; a class of somebody's own would run with the user's rights.

    Raises:
        UserError: a reader that is none of the framework's.
    """
    backend = card.source["backend"]
    if backend not in BACKENDS:
        raise UserError(f"the checkpoint reads slides by {backend!r}: give backend={backend} if you trust that class")
    return backend
