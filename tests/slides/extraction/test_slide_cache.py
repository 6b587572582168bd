"""Slides copied to a quick disk: the same features, bounded bytes, and the next copy made while one is encoded."""

import os
import threading

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.machine.processes import process_space
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.slide_cache import GIBIBYTE, SlideCache, slide_parts
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.slide_list import SlideEntry, list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

SETTINGS = Cutting(TilingSettings(tile_size=64, mpp=1.0))


class MeanColour:
    """An encoder that notes what lies in the cache while it works."""

    device = torch.device("cpu")
    num_features = 3
    identity, transform = {"name": "mean_colour"}, {"size": 64}

    def __init__(self, look=lambda: None):
        self.look = look

    def __call__(self, tiles):
        self.look()
        return tiles.float().mean(dim=(1, 2))


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    settings = SyntheticSettings(slides=5, size=768, mpp=1.0)
    return list_slides(build_synthetic_slides(tmp_path_factory.mktemp("slides"), settings, seed=0))


def gib_of(entries, count):
    return count * max(entry.path.stat().st_size for entry in entries) / GIBIBYTE


@pytest.mark.parametrize(("num_workers", "room"), [(0, 3), (1, 5)])
def test_copied_slides_give_the_same_features_within_the_bound(entries, tmp_path, num_workers, room):
    """A worker reads the few tiles of several such slides ahead."""
    plain = Extraction(entries, tmp_path / "plain", SETTINGS, MeanColour(), num_workers=num_workers).run()
    held, names = [], set()
    with SlideCache(tmp_path / "cache", gib_of(entries, room)) as cache:

        def look():
            copies = [path for path in cache.folder.rglob("*") if path.is_file()]
            held.append(sum(path.stat().st_size for path in copies))
            names.update(path.name for path in copies)

        extraction = Extraction(
            entries, tmp_path / "out", SETTINGS, MeanColour(look), num_workers=num_workers, cache=cache
        )
        outcomes = extraction.run()
        assert cache.held == 0
        assert not list(cache.folder.iterdir()), "each is removed when its slide is done"
        assert cache.uncopied == 0
        assert 0 < max(held) <= cache.most
    assert names == {entry.path.name for entry in entries}
    assert not list((tmp_path / "cache").iterdir())
    for one, other in zip(plain, outcomes, strict=True):
        assert other.status == "written"
        first, second = read_slide(one.path), read_slide(other.path)
        np.testing.assert_array_equal(first.features, second.features)
        assert first.attributes["slide"] == second.attributes["slide"], "of the original"
        assert other.entry.path == one.entry.path


def test_the_next_slide_is_fetched_while_one_is_encoded(entries, tmp_path):
    """The encoder of the first slide waits, ten seconds at most, for the copy of the second: it must come meanwhile."""
    fetched = threading.Event()

    class Watched(SlideCache):
        def fetch(self, entry):
            found = super().fetch(entry)
            if entry.slide_id == entries[1].slide_id:
                fetched.set()
            return found

    waited = []
    with Watched(tmp_path / "cache", gib_of(entries, 3)) as cache:
        encoder = MeanColour(lambda: waited.append(fetched.wait(10)))
        Extraction(entries[:2], tmp_path / "out", SETTINGS, encoder, cache=cache).run()
    assert waited[0]


def test_slides_without_room_are_read_where_they_are(entries, tmp_path):
    with (
        pytest.warns(UserWarning, match="5 slides were read where they are, .*cache_gib should be three times that"),
        SlideCache(tmp_path / "cache", gib_of(entries, 0.1)) as cache,
    ):
        outcomes = Extraction(entries, tmp_path / "out", SETTINGS, MeanColour(), cache=cache).run()
    assert [one.status for one in outcomes] == ["written"] * 5


def test_a_slide_that_cannot_be_copied_fails_alone(entries, tmp_path):
    gone = SlideEntry("gone", tmp_path / "gone.tif", "gone")
    gone.path.write_bytes(b"no slide")
    with SlideCache(tmp_path / "cache", 1.0) as cache:
        outcomes = Extraction([gone, entries[0]], tmp_path / "out", SETTINGS, MeanColour(), cache=cache).run()
        assert cache.held == 0
    assert [one.status for one in outcomes] == ["failed", "written"]


def test_all_files_of_a_slide_are_copied(tmp_path):
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0001.dat", "b.svs", "d/1.dcm", "d/2.dcm", "d/note.txt"):
        (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / name).write_text(name)
    root = tmp_path / "slides"
    for name, parts in {"a.mrxs": 3, "b.svs": 1, "d/1.dcm": 2}.items():
        assert len(slide_parts(root / name)) == parts
    with SlideCache(tmp_path / "cache", 1.0) as cache:
        copy = cache.fetch(SlideEntry("a", root / "a.mrxs", "a"))
        assert (copy.with_suffix("") / "Data0001.dat").read_text() == "a/Data0001.dat"
    assert slide_parts(root / "x.vms") == []


def test_copies_of_killed_processes_are_removed(tmp_path):
    dead, alive = tmp_path / f"{process_space()}-4194303-x", tmp_path / f"{process_space()}-{os.getppid()}-x"
    for folder in (dead, alive):
        folder.mkdir()
    with SlideCache(tmp_path, 1.0):
        assert not dead.exists()
        assert alive.exists()
    with pytest.raises(UserError, match="cache_gib=0"):
        SlideCache(tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache=.*file cannot be written"):
        SlideCache(tmp_path / "file", 1.0)
