"""Feature files to predict, one slide at a time, and whether they were made as those of the training."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kd_mil.cards.card import ModelCard
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_identity
from kd_mil.data.features.feature_bags import DTYPES
from kd_mil.data.features.files.facts import beside
from kd_mil.data.features.files.feature_file import EmptyBagError
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.listing import list_features
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.prediction.inputs import Config, PredictionInput, SlideInstances
from kd_mil.prediction.known_features import KnownFeatures
from kd_mil.prediction.tile_geometry import blank_picture, feature_geometry
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.overlays.slide_picture import SlidePicture, picture_of
from kd_mil.slides.slide_list import SlideEntry, list_slides

FEATURES_PER_STEP = 16_384


@dataclass(frozen=True)
class FeatureInput:
    """A feature file; the slide it came from, where it is at hand, gives the picture."""

    slide_id: str
    path: Path
    known: KnownFeatures
    picture_side: int
    slide: SlideEntry | None = None
    mpp: float | None = None
    """µm per level-0 pixel of the slide where it states none."""
    mpp_override: float | None = None
    """µm per level-0 pixel of the slide, whatever it states: of the list of features, else of the command."""
    backend: str = "openslide"
    tile_size_level0: int | None = None
    """Replaces what the file says."""
    instances_per_step: int | None = None
    fault: str = ""
    """Why the file cannot be taken, where it cannot."""
    label: str | None = None
    """What the list says the slide is."""
    case: str | None = None
    """Whose it is, where the list says so."""

    @property
    def case_id(self) -> str:
        return self.case or self.slide_id

    def facts(self) -> list[Any]:
        if self.fault:
            raise UserError(self.fault)
        facts = [*file_identity(self.path), *beside(self.path), self.tile_size_level0]
        if self.slide is not None and self.slide.path.is_file():
            facts += [*file_identity(self.slide.path), self.slide.mpp or self.mpp_override or self.mpp, self.backend]
        elif (mpp := self.mpp_override or self.mpp) is not None:
            facts.append(mpp)
        return facts

    def open(self) -> SlideInstances:
        try:
            facts, file, features = self.known.open(self.path)
        except EmptyBagError:
            warnings.warn(f"{self.path} holds no instances: a slide without tissue?", stacklevel=2)
            return SlideInstances(0, (), None, None)
        count, dtype = facts.num_instances, self.known.dtype
        steps = torch.arange(count).split(self.instances_per_step or FEATURES_PER_STEP)
        batches = (file.read(step, dtype) if features is None else features[step] for step in steps)
        shown = self._shown_slide()
        if self.slide is None and facts.bounds_offset is None:
            self.known.shown_from_the_corner()
        slide_mpp = (self.mpp_override or self.mpp) if shown is None else shown[0].mpp
        geometry = feature_geometry(file, slide_mpp, self.tile_size_level0, facts.bounds_offset, facts.slide_mpp)
        if geometry is None:
            return SlideInstances(count, batches, None, None)
        if shown is None:
            return SlideInstances(count, batches, geometry, blank_picture(geometry, self.picture_side))
        slide, picture = shown
        if geometry.extent not in (None, slide.dimensions):
            raise UserError(
                f"{self.path} was made from a slide of {geometry.extent} pixels, but {slide.path} has "
                f"{slide.dimensions}: it is not its slide"
            )
        geometry = geometry._replace(bounds_offset=slide.bounds[:2])
        return SlideInstances(count, batches, geometry, picture, slide=slide)

    def _shown_slide(self) -> tuple[Slide, SlidePicture] | None:
        """The slide, closed, and its thumbnail; None where none is given or, with a warning, it cannot be read."""
        if self.slide is None:
            return None
        try:
            override = self.slide.mpp or self.mpp_override
            slide = open_slide(self.slide.path, override, self.backend, default_mpp=self.mpp)
            picture = picture_of(slide, None, self.picture_side)
        except UserError as error:
            warnings.warn(f"{error}; the features of {self.slide_id} are shown without it", stacklevel=2)
            return None
        slide.close()
        return slide, picture


@contextmanager
def feature_inputs(config: Config, card: ModelCard) -> Iterator[Sequence[PredictionInput]]:
    """The feature files asked for, made as those of the training; slides of the same id give the pictures.

    Raises:
        UserError: no files, a checkpoint that was trained on tiles, or all files made in another way.
    """
    if card.source["kind"] != "features":
        raise UserError("the checkpoint was trained on tiles and encodes them itself: give slides=FOLDER, not features")
    one_of("dtype in the model card", card.source["dtype"], DTYPES)
    dtype, cache_dir = DTYPES[card.source["dtype"]], Path(config["paths"]["cache_dir"])
    entries = [] if config["slides"] is None else list_slides(config["slides"])
    slides = {entry.slide_id: entry for entry in entries}
    labels = {entry.slide_id: entry.label for entry in entries}
    cases = {entry.slide_id: entry.case_id for entry in entries}
    remote = RemoteFiles(cache_dir / "remote")
    files, folder = list_features(config["features"], remote)
    if entries and not any(file.slide_id in slides for file in files):
        raise UserError(f"slides={config['slides']}: none has the id of a feature file, such as {files[0].slide_id!r}")
    expected = card.source | {"width": card.model_inputs["instance_shape"][0]}
    with KnownFeatures(FeatureIndex(folder, cache_dir), expected, dtype) as known:
        known.require_a_fit([file.path for file in files if not file.fault])
        yield [
            FeatureInput(
                file.slide_id,
                file.path,
                known,
                config["picture_side"],
                slides.get(file.slide_id, file.slide),
                config["mpp"],
                file.mpp or config["mpp_override"] or None,
                config["backend"] or "openslide",
                config["tile_size_level0"],
                config["instances_per_step"],
                file.fault,
                file.label or labels.get(file.slide_id),
                file.case or cases.get(file.slide_id),
            )
            for file in files
        ]
