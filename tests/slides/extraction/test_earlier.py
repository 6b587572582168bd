"""What an earlier run left is kept where it is this slide's, read at this resolution, and refused where it is not."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.results import write_tables
from kd_mil.slides.extraction.store import PREFIX, read_attributes, read_slide
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

CUTTING = Cutting(TilingSettings(tile_size=64, mpp=1.0), mpp=1.0)


def tissue(side=512, box=(0, 0, 512, 512)):
    """Pink and speckled in a box (left, top, right, bottom), white elsewhere."""
    pixels = np.full((side, side, 3), 255, np.uint8)
    left, top, right, bottom = box
    shape = (bottom - top, right - left, 3)
    pixels[top:bottom, left:right] = np.random.default_rng(0).integers(-20, 20, shape) + np.array([200, 80, 150])
    return pixels


def picture(path, **drawn):
    """A PNG: it states no resolution."""
    Image.fromarray(tissue(**drawn)).save(path)
    return SlideEntry(path.stem, path, path.stem)


def aperio(path, mpp, **drawn):
    """A TIFF with Aperio's tags, which state the resolution."""
    text = f"Aperio Image Library v1.0\r\n512x512 |AppMag = {10 / mpp:g}|MPP = {mpp}"
    tifffile.imwrite(path, tissue(**drawn), tile=(256, 256), photometric="rgb", description=text, metadata=None)
    return SlideEntry(path.stem, path, path.stem)


def extracted(entry, out, cutting=CUTTING, **settings):
    [outcome] = Extraction([entry], out, cutting, **settings).run()
    return outcome


def test_another_slide_of_the_same_id_is_listed_and_the_first_ones_file_stays(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = picture(tmp_path / "one" / "1.png")
    kept = extracted(first, tmp_path / "out")
    other = picture(tmp_path / "two" / "1.png", box=(0, 0, 128, 128))
    outcomes = Extraction([other, picture(tmp_path / "two" / "2.png")], tmp_path / "out", CUTTING).run()
    assert [outcome.status for outcome in outcomes] == ["failed", "written"]
    assert "made from another slide than" in outcomes[0].message
    assert len(read_slide(kept.path).tiles.coords) == 64
    kept.path.unlink()
    assert extracted(other, tmp_path / "out").tiles == 4


def test_a_moved_slide_is_kept(tmp_path):
    entry = picture(tmp_path / "a.png")
    before = extracted(entry, tmp_path / "out").path.stat().st_mtime_ns
    (tmp_path / "b").mkdir()
    moved = replace(entry, path=shutil.move(tmp_path / "a.png", tmp_path / "b" / "a.png"))
    outcome = extracted(moved, tmp_path / "out")
    assert (outcome.status, outcome.path.stat().st_mtime_ns) == ("kept", before)


def test_a_resolution_fills_in_where_a_slide_states_none_and_the_manifest_carries_it(tmp_path):
    entries = [aperio(tmp_path / "a.svs", 0.5), picture(tmp_path / "b.png")]
    outcomes = Extraction(entries, tmp_path / "out", CUTTING).run()
    assert [(outcome.tiles, outcome.mpp) for outcome in outcomes] == [(16, None), (64, 1.0)]
    assert [read_attributes(outcome.path)["slide_mpp"] for outcome in outcomes] == [0.5, 1.0]
    assert [read_attributes(outcome.path)["mpp_source"] for outcome in outcomes] == ["file", "mpp"]
    again = list_slides(write_tables(outcomes, tmp_path / "out"))
    assert [entry.mpp for entry in again] == [None, 1.0]
    plain = replace(CUTTING, mpp=None)
    outcomes = Extraction(again, tmp_path / "out", plain).run()
    assert [outcome.status for outcome in outcomes] == ["kept", "kept"], "the manifest is a list that says it"


def test_an_override_is_for_all_slides_but_those_whose_list_says_otherwise(tmp_path):
    entries = [
        aperio(tmp_path / "a.svs", 0.5),
        replace(aperio(tmp_path / "c.svs", 0.5, box=(0, 0, 256, 512)), mpp=0.25),
    ]
    cutting = replace(CUTTING, mpp_override=1.0)  # for slides whose files are wrong
    outcomes = Extraction(entries, tmp_path / "out", cutting).run()
    assert [read_attributes(outcome.path)["slide_mpp"] for outcome in outcomes] == [1.0, 0.25]
    assert [outcome.mpp for outcome in outcomes] == [1.0, 0.25]
    with pytest.raises(UserError, match=r"slide_mpp was 1\.0 and is 0\.5"):
        extracted(entries[0], tmp_path / "out")


class MeanColour:
    """An encoder whose features anyone can compute."""

    import torch

    device, num_features, identity, transform = torch.device("cpu"), 3, {"name": "mean"}, {}

    def __call__(self, tiles):
        return tiles.float().mean(dim=(1, 2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_file_listed_at_two_resolutions_is_read_at_both(tmp_path, num_workers):
    entry = picture(tmp_path / "a.png", box=(0, 0, 256, 512))
    entries = [replace(entry, slide_id=name, mpp=mpp) for name, mpp in (("s", 1.0), ("t", 0.5))]
    cutting = replace(CUTTING, tiling=replace(CUTTING.tiling, min_tissue=0))
    for outcome in Extraction(entries, tmp_path, cutting, MeanColour(), num_workers=num_workers).run():
        stored = read_slide(outcome.path)
        side = stored.tiles.tile_size_level0
        assert side == 64 / outcome.entry.mpp
        pixels = tissue(box=(0, 0, 256, 512)).astype(float)
        expected = [pixels[y : y + side, x : x + side].mean(axis=(0, 1)) for x, y in stored.tiles.coords]
        np.testing.assert_allclose(stored.features, expected, atol=0.6)


def as_earlier(path):
    """The file as an earlier version wrote it."""
    with h5py.File(path, "a") as file:
        for name in ("slide", "mpp_source", "negatives_known"):
            del file.attrs[PREFIX + name]


def test_files_of_an_earlier_version_are_kept_and_what_they_do_not_say_is_said_once(tmp_path):
    entries = [aperio(tmp_path / "a.svs", 0.5), aperio(tmp_path / "b.svs", 1.0)]
    for outcome in Extraction(entries, tmp_path / "out", CUTTING).run():
        as_earlier(outcome.path)
    with pytest.warns(UserWarning, match="2 files in .* do not say from which slide") as caught:
        outcomes = Extraction(entries, tmp_path / "out", CUTTING).run()
    assert [outcome.status for outcome in outcomes] == ["kept", "kept"]
    assert sum("earlier version" in str(warning.message) for warning in caught) == 1
    aperio(tmp_path / "a.svs", 0.5, side=300, box=(0, 0, 300, 300))
    outcomes = Extraction(entries, tmp_path / "out", CUTTING).run()
    assert [outcome.status for outcome in outcomes] == ["failed", "kept"]
