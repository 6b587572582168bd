"""What there is to predict: slides, or the feature files of slides, one at a time."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_mil.data.feature_files import SUFFIXES, EmptyBagError, FeatureFile
from kd_mil.data.feature_sets import FOLDERS
from kd_mil.data.feature_source import differences, read_source, unknown_facts
from kd_mil.data.loaders import IndexedView
from kd_mil.data.tables import read_csv
from kd_mil.data.tile_cache import CutSlide, Cutting, identity
from kd_mil.data.tile_files import TilesInSlides
from kd_mil.errors import UserError
from kd_mil.prediction.place import Place, blank_picture, feature_place
from kd_mil.slides.reader import open_slide
from kd_mil.slides.slide_list import SlideEntry, mpp_of
from kd_mil.slides.slide_picture import SlidePicture, picture_of
from kd_mil.slides.tiling import tile_grid
from kd_mil.slides.tissue import find_tissue

FEATURES_PER_STEP, TILES_PER_STEP = 16_384, 64


class SlideInstances(NamedTuple):
    """The N instances of one slide, ready for the network."""

    total: int
    """N; 0 for a slide without tissue."""
    batches: Iterable[Tensor]
    """(M, ...) each, N in all."""
    place: Place | None
    """Where they lie; None where nobody knows, and there are no pictures."""
    picture: SlidePicture | None
    """What heat maps are drawn on; None without a place."""


class PredictionInput(Protocol):
    """One slide to predict."""

    @property
    def slide_id(self) -> str:
        """Names the files."""
        ...

    def facts(self) -> list[Any]:
        """Plain values that change when the input does."""
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

    def facts(self) -> list[Any]:
        return [*identity(self.entry.path), self.entry.mpp or self.cutting.mpp, self.cutting.backend]

    def open(self) -> SlideInstances:
        slide = self.cutting.open(self.entry)
        tiles = tile_grid(slide, find_tissue(slide, self.cutting.tissue), self.cutting.tiling)
        picture = picture_of(slide, None, self.picture_side)
        place = Place(tiles.coords, tiles.tile_size_level0, slide.bounds[:2], mpp=slide.mpp)
        slide.close()
        if not len(tiles.coords):
            return SlideInstances(0, (), None, None)
        pixels = TilesInSlides([CutSlide(self.entry, tiles, None)], self.cutting)
        steps = torch.arange(len(tiles.coords)).split(self.instances_per_step or TILES_PER_STEP)
        batches = DataLoader(
            IndexedView(pixels.__getitem__),
            sampler=steps,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.num_workers > 0 and torch.cuda.is_available(),
        )
        return SlideInstances(len(tiles.coords), batches, place, picture)


@dataclass(frozen=True)
class FeatureInput:
    """A feature file; the slide it came from, where it is at hand, gives the picture."""

    slide_id: str
    path: Path
    dtype: torch.dtype
    picture_side: int
    slide: SlideEntry | None = None
    mpp: float | None = None
    """um per level-0 pixel of the slide, whatever it says."""
    backend: str = "openslide"
    tile_size_level0: int | None = None
    """Replaces what the file says."""
    instances_per_step: int | None = None

    def facts(self) -> list[Any]:
        slide = [] if self.slide is None else [*identity(self.slide.path), self.slide.mpp or self.mpp, self.backend]
        return [*identity(self.path), self.tile_size_level0, *slide]

    def open(self) -> SlideInstances:
        try:
            file = FeatureFile(self.path)
        except EmptyBagError:
            warnings.warn(f"{self.path} holds no instances: a slide without tissue?", stacklevel=2)
            return SlideInstances(0, (), None, None)
        steps = torch.arange(file.num_instances).split(self.instances_per_step or FEATURES_PER_STEP)
        batches = (file.read(step, self.dtype) for step in steps)
        place = feature_place(self.path, file.coords(), self.tile_size_level0)
        if place is None:
            return SlideInstances(file.num_instances, batches, None, None)
        return SlideInstances(file.num_instances, batches, *self._on_slide(place))

    def _on_slide(self, place: Place) -> tuple[Place, SlidePicture]:
        """The place as the slide knows it, and its thumbnail; a blank one, with a warning, where it cannot be read."""
        if self.slide is None:
            return place, blank_picture(place, self.picture_side)
        try:
            slide = open_slide(self.slide.path, self.slide.mpp or self.mpp, self.backend)
            picture = picture_of(slide, None, self.picture_side)
        except UserError as error:
            warnings.warn(f"{error}; the features of {self.slide_id} are shown without it", stacklevel=2)
            return place, blank_picture(place, self.picture_side)
        slide.close()
        if place.extent not in (None, slide.dimensions):
            raise UserError(
                f"{self.path} was made from a slide of {place.extent} pixels, but {self.slide.path} has "
                f"{slide.dimensions}: it is not its slide"
            )
        return place._replace(bounds_offset=slide.bounds[:2], mpp=slide.mpp), picture


class FeatureEntry(NamedTuple):
    """One feature file of a list."""

    slide_id: str
    path: Path
    slide: SlideEntry | None = None
    """The slide it came from, where the list names one that is there."""


def list_features(source: str | Path) -> list[FeatureEntry]:
    """Feature files of a folder (sorted), of a CSV, or one file; of a folder of `kd_mil.extract`, CLAM or torchmil,
    those in its `features/`, `h5_files/` or `pt_files/`.

    The CSV has columns `slide_id` and `feature_path` and, for pictures, may have `slide_path` and `mpp`. Relative paths
    count from its folder. Further columns are ignored.

    Raises:
        UserError: nothing found, a fault of the CSV, an id that is repeated or cannot name a file.
    """
    path = Path(source)
    if path.suffix.lower() == ".csv":
        entries = _listed_features(path)
    elif path.is_dir():
        folder = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
        files = (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.name[0] != ".")
        entries = [FeatureEntry(file.stem, file) for file in files]
    else:
        entries = [FeatureEntry(path.stem, path)] if path.is_file() else []
    if not entries:
        raise UserError(f"no feature files in {str(source)!r}: give a folder, a CSV slide_id,feature_path or a file")
    seen: dict[str, Path] = {}
    for entry in entries:
        if Path(entry.slide_id).name != entry.slide_id or entry.slide_id in (".", ".."):
            raise UserError(f"{source}: slide id {entry.slide_id!r} cannot name a file: leave out slashes")
        if entry.slide_id in seen:
            raise UserError(
                f"{source}: slide {entry.slide_id!r} has two files, {seen[entry.slide_id]} and {entry.path}"
            )
        seen[entry.slide_id] = entry.path
    return entries


def _listed_features(path: Path) -> list[FeatureEntry]:
    table, entries = read_csv(path, ("slide_id", "feature_path")), []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        slide_id, file = row["slide_id"], path.parent / row["feature_path"]
        if not file.is_file():
            raise UserError(f"{path}, line {line}: there is no feature file {file}")
        slide = path.parent / row.get("slide_path", "")
        mpp = mpp_of(row, f"{path}, line {line}")
        entries.append(
            FeatureEntry(slide_id, file, SlideEntry(slide_id, slide, slide_id, mpp=mpp) if slide.is_file() else None)
        )
    return entries


def check_features(inputs: Iterable[FeatureInput], expected: dict[str, Any]) -> dict[str, int]:
    """Compare what the files say of their making with what the checkpoint was trained on.

    Files that cannot be read are passed over: their turn comes, and the error is theirs.

    Returns:
        For each fact that could not be compared, the number of files.

    Raises:
        UserError: a file made in another way.
    """
    missing: dict[str, int] = {}
    for one in inputs:
        try:
            found = read_source(one.path, _width(one.path))
        except UserError:
            continue
        for line in differences(expected, found):
            raise UserError(
                f"{one.path} does not fit the checkpoint, {line}: extract its features as for the training slides"
            )
        for name in unknown_facts(expected, found):
            missing[name] = missing.get(name, 0) + 1
    return missing


def _width(path: Path) -> int | None:
    try:
        return FeatureFile(path).width
    except EmptyBagError:
        return None
