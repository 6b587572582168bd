"""Feature files to predict, one slide at a time, and whether they were made as those of the training."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_identity
from kd_mil.data.features.feature_bags import DTYPES
from kd_mil.data.features.files import EmptyBagError, FeatureFile
from kd_mil.data.features.layouts import list_features
from kd_mil.data.features.provenance import differences, read_source, unknown_facts
from kd_mil.prediction.card import ModelCard
from kd_mil.prediction.inputs import Config, PredictionInput, SlideInstances
from kd_mil.prediction.tile_geometry import blank_picture, feature_geometry, stated_offset
from kd_mil.slides.formats.reader import Slide, open_slide
from kd_mil.slides.overlays.slide_picture import SlidePicture, picture_of
from kd_mil.slides.slide_list import SlideEntry, list_slides

FEATURES_PER_STEP = 16_384


@dataclass(frozen=True)
class FeatureInput:
    """A feature file; the slide it came from, where it is at hand, gives the picture."""

    slide_id: str
    path: Path
    dtype: torch.dtype
    picture_side: int
    slide: SlideEntry | None = None
    mpp: float | None = None
    """µm per level-0 pixel of the slide where it states none."""
    mpp_override: float | None = None
    """µm per level-0 pixel of the slide, whatever it states."""
    backend: str = "openslide"
    tile_size_level0: int | None = None
    """Replaces what the file says."""
    instances_per_step: int | None = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    """How the training features were made, as in `provenance.Source`."""

    def facts(self) -> list[Any]:
        facts = [*file_identity(self.path), self.tile_size_level0]
        if self.slide is not None:
            facts += [*file_identity(self.slide.path), self.slide.mpp or self.mpp_override or self.mpp, self.backend]
        return facts

    def open(self) -> SlideInstances:
        try:
            file = FeatureFile(self.path)
        except EmptyBagError:
            warnings.warn(f"{self.path} holds no instances: a slide without tissue?", stacklevel=2)
            return SlideInstances(0, (), None, None)
        for line in differences(self.expected, read_source(self.path, file.width)):
            raise UserError(misfit(self.path, line))
        steps = torch.arange(file.num_instances).split(self.instances_per_step or FEATURES_PER_STEP)
        batches = (file.read(step, self.dtype) for step in steps)
        shown = self._shown_slide()
        geometry = feature_geometry(file, self.mpp if shown is None else shown[0].mpp, self.tile_size_level0)
        if geometry is None:
            return SlideInstances(file.num_instances, batches, None, None)
        if shown is None:
            return SlideInstances(file.num_instances, batches, geometry, blank_picture(geometry, self.picture_side))
        slide, picture = shown
        if geometry.extent not in (None, slide.dimensions):
            raise UserError(
                f"{self.path} was made from a slide of {geometry.extent} pixels, but {slide.path} has "
                f"{slide.dimensions}: it is not its slide"
            )
        return SlideInstances(file.num_instances, batches, geometry._replace(bounds_offset=slide.bounds[:2]), picture)

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


def check_features(inputs: Sequence[FeatureInput], expected: Mapping[str, Any]) -> dict[str, int]:
    """Compare what the files say of their making with what the checkpoint was trained on.

    Files that cannot be read, or do not fit, are passed over while others do: their turn comes, the error is theirs.

    Returns:
        For each fact that could not be compared, the number of files.

    Raises:
        UserError: no file fits that can be read.
    """
    missing: dict[str, int] = {}
    misfits: list[str] = []
    fitting = 0
    for item in inputs:
        try:
            found = read_source(item.path, _width(item.path))
        except UserError:
            continue
        lines = differences(expected, found)
        misfits += [misfit(item.path, line) for line in lines[:1]]
        fitting += not lines
        for name in unknown_facts(expected, found):
            missing[name] = missing.get(name, 0) + 1
    if misfits and not fitting:
        raise UserError(misfits[0] + (f" ({len(misfits) - 1} more files, too)" if len(misfits) > 1 else ""))
    return missing


def misfit(path: Path, line: str) -> str:
    """What to say of a feature file that differs from those of the training in what `line` says."""
    return f"{path} does not fit the checkpoint, {line}: extract its features as for the training slides"


def _width(path: Path) -> int | None:
    try:
        return FeatureFile(path).width
    except EmptyBagError:
        return None


def feature_inputs(config: Config, card: ModelCard) -> Sequence[PredictionInput]:
    """The feature files asked for, made as those of the training; slides of the same id give the pictures.

    Raises:
        UserError: no files, a checkpoint that was trained on tiles, or all files made in another way.
    """
    if card.source["kind"] != "features":
        raise UserError("the checkpoint was trained on tiles and encodes them itself: give slides=FOLDER, not features")
    entries = [] if config["slides"] is None else list_slides(config["slides"])
    slides = {entry.slide_id: entry for entry in entries}
    files = list_features(config["features"])
    if entries and not any(file.slide_id in slides for file in files):
        raise UserError(f"slides={config['slides']}: none has the id of a feature file, such as {files[0].slide_id!r}")
    expected = card.source | {"width": card.model_inputs["instance_shape"][0]}
    inputs = [
        FeatureInput(
            file.slide_id,
            file.path,
            DTYPES[card.source["dtype"]],
            config["picture_side"],
            slides.get(file.slide_id, file.slide),
            config["mpp"],
            config["mpp_override"] or None,
            config["backend"] or "openslide",
            config["tile_size_level0"],
            config["instances_per_step"],
            expected,
        )
        for file in files
    ]
    missing = check_features(inputs, expected)
    if missing:
        counts = ", ".join(f"{name} ({count} of {len(inputs)} files)" for name, count in missing.items())
        warnings.warn(f"not compared with the training features, some files do not say: {counts}", stacklevel=2)
    silent = [item for item in inputs if item.slide is None and not states_bounds(item.path)]
    if silent:
        warnings.warn(
            f"{len(silent)} feature files without their slides: positions in GeoJSON count from the slide's corner, "
            "which QuPath shows shifted on slides with bounds (MRXS, SCN): give slides=FOLDER for those",
            stacklevel=2,
        )
    return inputs


def states_bounds(path: Path) -> bool:
    """Whether a feature file says where the scanned area of its slide lies, or cannot be read: its turn comes."""
    try:
        return stated_offset(path) is not None
    except UserError:
        return True
