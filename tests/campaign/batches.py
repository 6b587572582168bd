"""Which cases go through which command together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign.cases import Case
from tests.campaign.inputs import (
    arrays,
    broken_geojson,
    damaged_slides,
    formats,
    geojson,
    hostile_hdf5,
    images,
    label_masks,
    numpy_files,
    ome,
    outlines_xml,
    resolutions,
    tensors,
    tile_sizes,
    tissues,
)
from tests.campaign.inputs.features import hdf5
from tests.campaign.inputs.pictures import TILING, good, picture, tissue


@dataclass(frozen=True)
class Batch:
    """Cases of one kind that go through one command together."""

    name: str
    command: str
    settings: tuple[str, ...]
    cases: Sequence[Case]
    companion: Callable[[Path], Any]
    """Writes the good input `good`, and returns its row."""


SLIDES = (resolutions, ome, formats, damaged_slides, tissues)
ANNOTATIONS = (geojson, broken_geojson, outlines_xml, label_masks)
FEATURES = (arrays, tile_sizes, hostile_hdf5, tensors, numpy_files)
HARD_SLIDES = ("damaged slides", "odd names", "small slides", "slides with bounds")
HARD_FEATURES = ("hostile HDF5", "hostile files", "damaged features", "PyTorch files", "NumPy files")
"""Kinds that `predict` and `segment`, and `export`, are shown, too: the others are the business of the one reader."""


def batches() -> Iterator[Batch]:
    """All of them; what a folder or a list holds goes through the command at once."""
    of_slides = [case for module in SLIDES for case in module.cases()]
    hard = [case for case in of_slides if case.kind in HARD_SLIDES]
    extract = ("slides=in/list.csv", "out=out", *TILING)
    on_tiles = ("ckpt=@tiles", "slides=in/list.csv", "out=out", "table=csv", "device=cpu")
    on_slides = ("ckpt=@masks", "slides=in/list.csv", "out=out", "device=cpu", "mpp=2.0")
    yield Batch("slides/extract", "extract", extract, of_slides, _good_slide)
    yield Batch("slides/predict", "predict", on_tiles, hard, _good_slide)
    yield Batch("slides/segment", "segment", on_slides, hard, _good_slide)
    of_annotations = [case for module in ANNOTATIONS for case in module.cases()]
    yield Batch("annotations/extract", "extract", extract, of_annotations, _good_slide)
    of_features = [case for module in FEATURES for case in module.cases()]
    on_features = ("ckpt=@features", "features=in/list.csv", "out=out", "table=csv", "device=cpu")
    yield Batch("features/predict", "predict", on_features, of_features, _good_features)
    hard = [case for case in of_features if case.kind in HARD_FEATURES]
    yield Batch("features/export", "export", ("features=in/list.csv", "format=clam", "out=out"), hard, _good_features)
    on_images = ("ckpt=@masks", "images=in", "out=out", "device=cpu")
    yield Batch("images/segment", "segment", on_images, list(images.cases()), _good_image)


def _good_slide(folder: Path) -> dict[str, Any]:
    good(folder / "good.svs")
    return {"slide_path": "good.svs", "slide_id": "good"}


def _good_features(folder: Path) -> dict[str, Any]:
    hdf5()(folder / "good.h5")
    return {"slide_id": "good", "feature_path": "good.h5"}


def _good_image(folder: Path) -> None:
    picture(folder / "good.png", tissue(size=(256, 256), box=(64, 64, 192, 192)))
