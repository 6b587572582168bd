"""Which feature files there are, and what makes an input another one."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.cards.card import ModelCard
from kd_mil.core.errors import UserError
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.listing import list_features
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.prediction.feature_inputs import FeatureInput, feature_inputs
from kd_mil.prediction.inputs import SlideInput, slide_inputs
from kd_mil.prediction.known_features import KnownFeatures
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings


@pytest.mark.parametrize("inside", ["", "features", "h5_files"])
def test_features_lie_in_the_folder_or_where_extract_and_clam_put_them(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    for name in ("b.npy", "a.npy"):
        np.save(folder / name, np.zeros((2, 3)))
    (folder / ".a.npy.part").touch()
    entries, _ = list_features(tmp_path, RemoteFiles(tmp_path / "cache"))
    assert [(entry.slide_id, entry.path) for entry in entries] == [("a", folder / "a.npy"), ("b", folder / "b.npy")]


def test_what_the_pictures_show_belongs_to_the_input(tmp_path: Path) -> None:
    for name in ("a.npy", "a.png", "b.png"):
        (tmp_path / name).touch()
    ways = [("a", None), ("a", 1.0), ("b", None)]
    slides = [None, *(SlideEntry("a", tmp_path / f"{name}.png", "a", mpp=mpp) for name, mpp in ways)]
    known = KnownFeatures(FeatureIndex(tmp_path, tmp_path), {}, torch.float16)
    inputs = [FeatureInput("a", tmp_path / "a.npy", known, 64, slide, mpp) for slide in slides for mpp in (0.25, 0.5)]
    facts = [one.facts() for one in inputs]
    assert facts[0] != facts[1], "positions in micrometres and scale bars follow it without a slide, too"
    assert facts[4] == facts[5], "a slide's own resolution in the list wins"
    assert len({str(one) for one in facts}) == 7


def test_positions_in_micrometres_are_scaled_by_the_list(tmp_path: Path) -> None:
    """Though the slide itself is elsewhere; what the list says goes before what the command says of all."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((2, 3)), np.array([[0.0, 0.0], [256.0, 512.0]])
        file.attrs.update({"unit": "um", "tile_size": 256.0})
    (tmp_path / "list.csv").write_text("slide_id,feature_path,mpp\na,a.h5,0.5\nb,a.h5,\n")
    (tmp_path / "run").mkdir()
    source = {"kind": "features", "dtype": "float32"}
    card = ModelCard({}, {"instance_shape": [3]}, ["no", "yes"], source, "", "")
    ask = {"slides": None, "features": str(tmp_path / "list.csv"), "picture_side": 64, "mpp": None, "backend": None}
    ask |= {"tile_size_level0": None, "instances_per_step": None, "paths": {"cache_dir": str(tmp_path / "cache")}}
    ends = []
    for override in (None, 0.25):
        with feature_inputs(ask | {"mpp_override": override}, card) as inputs:
            found = [one.open().geometry for one in inputs]
            ends.append([None if one is None else one.coords[1].tolist() for one in found])
            assert (found[0].tile_size_level0, found[0].mpp) == (512, 0.5)
    assert ends == [[[512, 1024], None], [[512, 1024], [1024, 2048]]]


def test_a_slide_smaller_than_a_tile_is_said_to_be_so(tmp_path: Path) -> None:
    Image.new("RGB", (40, 300), "white").save(tmp_path / "a.png")
    Image.new("RGB", (300, 300), "white").save(tmp_path / "b.png")
    cutting = Cutting(TilingSettings(mpp=1.0, tile_size=64), mpp=1.0)
    small, empty = (
        SlideInput(SlideEntry(name, tmp_path / f"{name}.png", name), cutting, 64).open() for name in ("a", "b")
    )
    assert small.note == "smaller than a tile (40 x 300 level-0 pixels, a tile has 64 x 64)"
    assert "small" not in empty.note


def test_a_checkpoint_chooses_no_reader_of_its_own(tmp_path: Path) -> None:
    """Else a file from elsewhere could import anything; asked for by the user, the class is taken."""
    foreign = "kd_mil.slides.formats.image_slide.ImageSlide"
    source = {"kind": "tiles", "tiling": {"mpp": 1.0, "tile_size": 8}, "tissue": {}, "backend": foreign}
    card = ModelCard({}, {}, ["normal", "tumour"], source, "", "")
    (tmp_path / "a.png").touch()
    config = {
        "slides": tmp_path,
        "mpp": 1.0,
        "mpp_override": None,
        "outlines": None,
        "picture_side": 8,
        "instances_per_step": None,
        "num_workers": 0,
    }
    with pytest.raises(UserError, match="give backend="):
        slide_inputs(config | {"backend": None}, card)
    [slide] = slide_inputs(config | {"backend": foreign}, card)
    assert slide.cutting.backend == foreign


def test_slides_are_read_as_the_training_read_them_unless_told_otherwise(tmp_path: Path) -> None:
    """A resolution that fills in, and one that overrides: the card's, then the command's, and 0 for neither."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = {
        **{"kind": "tiles", "tiling": {"mpp": 1.0, "tile_size": 8}, "tissue": {}, "backend": "openslide"},
        **{"slide_mpp": 0.5, "slide_mpp_override": 0.25},
    }
    card = ModelCard({}, {}, ["normal", "tumour"], source, "", "")

    def reading(mpp: float | None, mpp_override: float | None) -> tuple[float | None, float | None]:
        config = {"slides": tmp_path, "mpp": mpp, "mpp_override": mpp_override, "picture_side": 8, "backend": None}
        config["outlines"] = None
        [item] = slide_inputs(config | {"instances_per_step": None, "num_workers": 0}, card)
        return item.cutting.mpp, item.cutting.mpp_override

    with pytest.warns(UserWarning, match=r"read at mpp_override=0\.25 as in training"):
        assert reading(None, None) == (0.5, 0.25)
    assert reading(1.0, 2.0) == (1.0, 2.0)
    assert reading(None, 0) == (0.5, None)
