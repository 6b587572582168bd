"""What feature files say of their making, and which sets go together."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.provenance import (
    common_source,
    differences,
    read_source,
    unknown_facts,
    untold,
    warn_of_old_stores,
)
from kd_mil.slides.extraction.store import write_slide
from kd_mil.slides.tiles.tiling import Tiles

KNOWN = {
    "width": 4,
    "encoder": "resnet18",
    "weights": "abc",
    "transform": {"size": 256},
    "tile_size": 256,
    "preset": "uni",
    "output": "cls",
    "stain": {"name": "macenko"},
    "mpp": 0.5,
    "magnification": 20,
}
UNKNOWN = dict.fromkeys(KNOWN)


def trident(path: Path, **attributes: object) -> Path:
    """A file as TRIDENT writes it."""
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.int64)
        file["features"].attrs["encoder"] = attributes.pop("encoder", "uni_v1")
        stated = {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20}
        file["coords"].attrs.update(stated | attributes)
    return path


def test_our_own_files_tell_everything(tmp_path: Path) -> None:
    tiles = Tiles(np.zeros((3, 2), np.int64), np.ones(3, np.float32), 256, 512, 0.5, 0, "s", (5000, 4000), 0.25)
    encoder = {"name": "resnet18", "weights": "abc", "features": 4, "preset": "uni", "output": "cls"}
    attributes = {"encoder": encoder, "transform": {"size": 256}, "stain": {"name": "macenko"}}
    write_slide(tmp_path / "s.h5", tiles, np.zeros((3, 4)), attributes=attributes)
    assert read_source(tmp_path / "s.h5", 4) == KNOWN
    attributes |= {"encoder": encoder | {"preset": None, "output": None}, "stain": None}
    write_slide(tmp_path / "s.h5", tiles, np.zeros((3, 4)), attributes=attributes)
    assert read_source(tmp_path / "s.h5", 4) == KNOWN | {"preset": None, "output": "own", "stain": "none"}


def test_what_old_stores_do_not_say_is_said_once(recwarn: pytest.WarningsRecorder) -> None:
    """Files of other tools say nothing that could be missed."""
    today = {"version": "0.2", "slide": {"content": "abc"}, "negatives_known": True}
    old = [{"version": "0.1"}, {"version": "0.1", "slide": {"content": "abc"}}]
    warn_of_old_stores([untold(attributes) for attributes in (today, {}, {})])
    assert not recwarn
    warn_of_old_stores([untold(attributes) for attributes in (*old, today, {})])
    [warning] = recwarn
    assert "count as unknown, not as negative (2 of 4 files)" in str(warning.message)
    assert "cannot be verified (1 of 4 files)" in str(warning.message)


def test_trident_and_stamp(tmp_path: Path) -> None:
    source = read_source(trident(tmp_path / "t.h5"), 4)
    assert source == UNKNOWN | {"width": 4, "encoder": "uni_v1", "tile_size": 256, "magnification": 20}
    assert read_source(trident(tmp_path / "n.h5", encoder="None"))["encoder"] is None  # TRIDENT's word for it
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = np.zeros((3, 4), np.float32)
        file.attrs.update(extractor="ctranspath", tile_size_um=256.0, tile_size_px=224, unit="um")
    stamp = read_source(tmp_path / "stamp.h5")
    assert (stamp["encoder"], stamp["tile_size"]) == ("ctranspath", 224)
    assert stamp["mpp"] == pytest.approx(256 / 224)


def test_clam_and_plain_arrays_tell_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, 4)), np.zeros((3, 2))
        file["coords"].attrs.update(patch_size=256, patch_level=1)  # pixels of some level: not to be taken for ours
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    assert read_source(tmp_path / "clam.h5", 4) == read_source(tmp_path / "a.npy", 4) == UNKNOWN | {"width": 4}


@pytest.mark.parametrize(
    ("name", "other", "line"),
    [
        ("weights", "abd", "weights: 'abd', not 'abc'"),
        ("transform", {"size": 224}, "transform: {'size': 224}, not {'size': 256}"),
        ("tile_size", 512, "tile_size: 512, not 256"),
        ("width", 8, "width: 8, not 4"),
    ],
)
def test_each_fact_that_differs_is_named(name: str, other: object, line: str) -> None:
    assert differences(KNOWN, KNOWN | {name: other}) == [line]
    assert differences(KNOWN, KNOWN | {name: None}) == []
    assert unknown_facts(KNOWN, KNOWN | {name: None}) == [name]


def test_other_poolings_of_the_same_width_are_told_apart() -> None:
    assert differences(KNOWN, KNOWN | {"output": "mean"}) == ["output: 'mean', not 'cls'"]
    assert differences(KNOWN, KNOWN | {"output": None}) == unknown_facts(KNOWN, KNOWN | {"output": None}) == []


def test_normalised_stains_are_told_from_those_as_they_are() -> None:
    assert differences(KNOWN, KNOWN | {"stain": "none"}) == ["stain: 'none', not {'name': 'macenko'}"]
    assert differences(KNOWN, KNOWN | {"stain": None}) == [], "files of earlier versions do not say"


def test_names_do_not_count_where_the_weights_are_the_same() -> None:
    """A copy on disk is the model of the hub; without hashes, as in files of others, names are all there is."""
    other = {"encoder": "resnet50", "preset": "uni2_h"}
    assert differences(KNOWN, KNOWN | other) == []
    lines = ["encoder: 'resnet50', not 'resnet18'", "preset: 'uni2_h', not 'uni'"]
    assert differences(KNOWN, KNOWN | other | {"weights": None}) == lines
    assert differences(KNOWN, KNOWN | other | {"weights": "x"}) == [
        "encoder: 'resnet50', not 'resnet18'",
        "weights: 'x', not 'abc'",
        lines[1],
    ]


def test_resolution_agrees_by_pixel_size_or_by_nominal_magnification() -> None:
    """20x on scanners of 0.2525 and 0.23 um is one tiling; so is 0.5 um on a 20x and an 18.4x slide."""
    assert differences(KNOWN, KNOWN | {"mpp": 0.46}) == []
    assert differences(KNOWN, KNOWN | {"magnification": 18.4}) == []
    assert differences(KNOWN, KNOWN | {"mpp": 0.508, "magnification": None}) == []
    assert differences(KNOWN, KNOWN | {"mpp": 1.0, "magnification": 10}) == ["mpp: 1, not 0.5"]
    assert differences(KNOWN, KNOWN | {"mpp": 0.46, "magnification": None}) == ["mpp: 0.46, not 0.5"]
    assert differences(KNOWN, KNOWN | {"mpp": None, "magnification": 40}) == ["magnification: 40, not 20"]


def test_unknown_resolution_counts_once() -> None:
    assert unknown_facts(KNOWN, KNOWN | {"mpp": None}) == []
    assert unknown_facts(KNOWN, KNOWN | {"mpp": None, "magnification": None}) == ["mpp"]
    assert unknown_facts(KNOWN | {"mpp": None}, KNOWN | {"magnification": None}) == ["mpp"]


def test_a_set_knows_what_any_of_its_files_knows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    paths = [tmp_path / "a.npy", trident(tmp_path / "b.h5"), trident(tmp_path / "c.h5")]
    assert common_source(paths, [read_source(path, 4) for path in paths])["encoder"] == "uni_v1"


def test_files_of_a_set_must_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    paths = [tmp_path / "a.npy", trident(tmp_path / "b.h5"), trident(tmp_path / "c.h5", encoder="conch")]
    with pytest.raises(UserError, match=r"c.h5 .* were not made alike, encoder: 'conch', not 'uni_v1'"):
        common_source(paths, [read_source(path, 4) for path in paths])
