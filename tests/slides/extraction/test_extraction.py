"""The whole way from slides to files: right features, full batches, resume after kill -9, several processes."""

import multiprocessing
import os
import random
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.annotations import AnnotationSettings
from kd_mil.slides.extraction import extraction
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.planning import plan_slide
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides, truth_fractions
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

FORK = multiprocessing.get_context("fork")
SETTINGS = Cutting(TilingSettings(tile_size=64, mpp=1.0), annotations=AnnotationSettings(mask_mpp=4.0))


class MeanColour:
    """An encoder whose features anyone can compute: mean red, green, blue."""

    device = torch.device("cpu")
    num_features = 3

    def __init__(self, seconds=0.0):
        self.seconds, self.batches = seconds, []
        self.identity, self.transform = {"name": "mean_colour"}, {"size": 64}

    def __call__(self, tiles):
        self.batches.append(len(tiles))
        time.sleep(self.seconds)
        return tiles.float().mean(dim=(1, 2))


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    settings = SyntheticSettings(slides=6, size=768, mpp=1.0)
    return list_slides(build_synthetic_slides(tmp_path_factory.mktemp("slides"), settings, seed=0))


def files(out: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("features/*.h5")}


def leftovers(out: Path) -> list[str]:
    return [str(path) for path in out.rglob("*") if path.name.startswith(".") and path.name != ".finished"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_features_are_those_of_the_slides_own_pixels(entries, tmp_path, num_workers):
    """Against OpenSlide alone, tile by tile; no batch holds tiles of two slides."""
    encoder = MeanColour()
    outcomes = Extraction(entries[:3], tmp_path, SETTINGS, encoder, batch_size=7, num_workers=num_workers).run()
    assert [one.status for one in outcomes] == ["written"] * 3
    assert encoder.batches == [min(7, one.tiles - first) for one in outcomes for first in range(0, one.tiles, 7)]
    for outcome in outcomes:
        stored = read_slide(outcome.path)
        handle = openslide.OpenSlide(outcome.entry.path)
        pixels = [handle.read_region((x, y), 0, (64, 64)).convert("RGB") for x, y in stored.tiles.coords.tolist()]
        expected = np.stack([np.asarray(tile, np.float32).mean(axis=(0, 1)) for tile in pixels])
        np.testing.assert_allclose(stored.features, expected, atol=0.1)
        assert len(stored.features) == outcome.tiles > 10
        assert stored.attributes["encoder"] == {"name": "mean_colour"}
    assert not leftovers(tmp_path)


def test_tumour_area_is_that_of_the_truth(entries, tmp_path):
    entry = next(one for one in entries if one.label == "positive")
    [outcome] = Extraction([entry], tmp_path, SETTINGS).run()
    stored = read_slide(outcome.path)
    truth = entry.path.parent.parent / "truth" / f"{entry.slide_id}.png"
    expected = truth_fractions(truth, stored.tiles.coords, stored.tiles.tile_size_level0).sum(axis=1)
    assert expected.max() > 0.2
    np.testing.assert_allclose(stored.tumour_fraction, expected, atol=0.05)


def test_a_second_run_does_nothing(entries, tmp_path):
    Extraction(entries[:2], tmp_path, SETTINGS, MeanColour()).run()
    before, encoder = files(tmp_path), MeanColour()
    outcomes = Extraction(entries[:2], tmp_path, SETTINGS, encoder).run()
    assert [one.status for one in outcomes] == ["kept"] * 2
    assert all(one.tiles > 0 for one in outcomes)
    assert encoder.batches == []
    assert files(tmp_path) == before


def test_other_settings_are_refused_before_anything_is_done(entries, tmp_path):
    Extraction(entries[:1], tmp_path, SETTINGS, MeanColour()).run()
    other = replace(SETTINGS, tiling=replace(SETTINGS.tiling, min_tissue=0.5))
    with pytest.raises(UserError, match=r"tiling\.min_tissue was 0\.25 and is 0\.5"):
        Extraction(entries[:2], tmp_path, other, MeanColour()).run()
    with pytest.raises(UserError, match=r"slide_mpp was 1\.0 and is 0\.9"):
        Extraction([replace(entries[0], mpp=0.9)], tmp_path, SETTINGS, MeanColour()).run()
    assert len(files(tmp_path)) == 1


def test_a_changed_annotation_changes_the_tumour_and_computes_no_features(entries, tmp_path):
    entry = next(one for one in entries if one.label == "positive")
    [first] = Extraction([replace(entry, annotation_path=None)], tmp_path, SETTINGS, MeanColour()).run()
    before = read_slide(first.path)
    encoder = MeanColour()
    [second] = Extraction([entry], tmp_path, SETTINGS, encoder).run()
    after = read_slide(second.path)
    assert (before.tumour_fraction, encoder.batches, second.status) == (None, [], "written")
    assert after.tumour_fraction.max() > 0.2
    np.testing.assert_array_equal(after.features, before.features)


def test_a_damaged_slide_is_skipped(entries, tmp_path, capsys):
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"II*\0 no more")
    encoder = MeanColour()
    wrong = replace(entries[0], slide_id="bad", path=bad, annotation_path=None)
    outcomes = Extraction([entries[0], wrong, entries[1]], tmp_path / "out", SETTINGS, encoder).run()
    assert [one.status for one in outcomes] == ["written", "failed", "written"]
    assert "bad.svs" in outcomes[1].message
    assert capsys.readouterr().err.count("skipped bad: ") == 1
    assert len(files(tmp_path / "out")) == 2
    assert not leftovers(tmp_path / "out")


class TooLarge(MeanColour):
    """Beyond half precision on one tile of the second slide it sees."""

    def __call__(self, tiles):
        features = super().__call__(tiles)
        if len(self.batches) == self.wrong_batch:
            features[0, 0] = 1e6
        return features


def test_a_tile_beyond_half_precision_costs_its_slide_alone(entries, tmp_path, capsys):
    encoder = TooLarge()
    encoder.wrong_batch = 2
    outcomes = Extraction(entries[:3], tmp_path, SETTINGS, encoder, batch_size=10_000).run()
    assert [one.status for one in outcomes] == ["written", "failed", "written"]
    assert "features of tile 0 are NaN or beyond half precision" in outcomes[1].message
    assert not leftovers(tmp_path)
    capsys.readouterr()


@pytest.mark.parametrize("error", [RecursionError("too deep"), MemoryError(), OSError(5, "drive gone"), KeyError("x")])
def test_whatever_a_slide_raises_is_listed_and_the_rest_is_done(entries, tmp_path, monkeypatch, error):
    def plan_or_raise(entry, *arguments):
        if entry.slide_id == entries[1].slide_id:
            raise error
        return plan_slide(entry, *arguments)

    monkeypatch.setattr(extraction, "plan_slide", plan_or_raise)
    outcomes = Extraction(entries[:3], tmp_path, SETTINGS, MeanColour(), 7).run()
    assert [one.status for one in outcomes] == ["written", "failed", "written"]
    assert type(error).__name__ in outcomes[1].message


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("illegal instruction"), "RuntimeError: illegal instruction"),
        (torch.OutOfMemoryError("CUDA"), "out of memory: lower batch_size=10000"),
    ],
)
def test_whatever_the_encoder_raises_costs_its_slide_alone(entries, tmp_path, error, line):
    class Fails(MeanColour):
        calls = 0

        def __call__(self, tiles):
            self.calls += 1
            if self.calls == 2:
                raise error
            return super().__call__(tiles)

    outcomes = Extraction(entries[:3], tmp_path, SETTINGS, Fails(), batch_size=10_000).run()
    assert [one.status for one in outcomes] == ["written", "failed", "written"]
    assert outcomes[1].message == line


def test_an_annotation_that_cannot_be_read_is_listed(entries, tmp_path):
    wrong = replace(entries[0], annotation_path=tmp_path)
    outcomes = Extraction([wrong, entries[1]], tmp_path / "out", SETTINGS).run()
    assert [one.status for one in outcomes] == ["failed", "written"]


def test_features_do_not_depend_on_what_was_extracted_before(entries, tmp_path):
    """Bit for bit, though the encoder looks at whole batches: so an interrupted run ends as an undisturbed one."""

    class Normalised(MeanColour):
        def __call__(self, tiles):
            features = super().__call__(tiles)
            return features - features.mean(dim=0)

    together = Extraction(entries[:3], tmp_path / "a", SETTINGS, Normalised(), batch_size=7).run()
    alone = Extraction(entries[2:3], tmp_path / "b", SETTINGS, Normalised(), batch_size=7).run()
    np.testing.assert_array_equal(read_slide(together[2].path).features, read_slide(alone[0].path).features)


def test_stop_finishes_what_was_begun_and_no_more(entries, tmp_path):
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"")
    wrong = replace(entries[0], slide_id="bad", path=bad, annotation_path=None)
    with pytest.raises(UserError, match=r"bad\.svs.* is empty"):
        Extraction(
            [entries[0], wrong, *entries[1:]], tmp_path / "out", SETTINGS, MeanColour(), 7, on_error="stop"
        ).run()
    assert list(files(tmp_path / "out")) == [f"{entries[0].slide_id}.h5"]
    assert not leftovers(tmp_path / "out")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_slide_that_breaks_while_it_is_read_is_left_out(entries, tmp_path, monkeypatch, num_workers):
    """It was fine when its tissue was found; its tiles already read do not become a file."""

    def plan_then_break(entry, *arguments):
        plan = plan_slide(entry, *arguments)
        if entry.slide_id == entries[1].slide_id:
            return replace(plan, entry=replace(entry, path=tmp_path / "gone.tif"))
        return plan

    monkeypatch.setattr(extraction, "plan_slide", plan_then_break)
    out = tmp_path / "out"
    outcomes = Extraction(entries[:3], out, SETTINGS, MeanColour(), 7, num_workers=num_workers).run()
    assert [one.status for one in outcomes] == ["written", "failed", "written"]
    assert "gone.tif" in outcomes[1].message
    assert len(files(out)) == 2


def test_a_slide_without_tissue_has_an_empty_file(tmp_path, recwarn):
    Image.new("RGB", (300, 300), "white").save(tmp_path / "blank.png")
    [entry] = list_slides(tmp_path / "blank.png")
    [outcome] = Extraction([entry], tmp_path, replace(SETTINGS, mpp=1.0), MeanColour()).run()
    assert (outcome.status, outcome.tiles) == ("written", 0)
    assert read_slide(outcome.path).features.shape == (0, 3)
    assert any("no tissue" in str(warning.message) for warning in recwarn)


def test_a_slide_smaller_than_a_tile_is_called_so(tmp_path):
    Image.new("RGB", (40, 300), (210, 130, 180)).save(tmp_path / "small.png")
    entries = [replace(entry, mpp=0.5) for entry in list_slides(tmp_path / "small.png")]
    with pytest.warns(UserWarning, match=r"'small': smaller than a tile \(40 x 300 level-0 pixels"):
        [outcome] = Extraction(entries, tmp_path / "out", SETTINGS).run()
    assert (outcome.status, outcome.tiles) == ("written", 0)
    assert "smaller than a tile (40 x 300" in outcome.message


def test_doubtful_tissue_is_told_in_the_outcome_and_again_on_the_next_run(tmp_path):
    Image.new("RGB", (512, 512), (210, 130, 180)).save(tmp_path / "pink.png")
    entries = [replace(entry, mpp=1.0) for entry in list_slides(tmp_path / "pink.png")]
    for status in ("written", "kept"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            [outcome] = Extraction(entries, tmp_path / "out", SETTINGS).run()
        assert (outcome.status, outcome.tiles) == (status, 64)
        assert outcome.message.startswith("nearly everything (100%) counts as tissue")


def extract(entries, out, encoder, results=None, num_workers=1):
    torch.set_num_threads(1)
    outcomes = Extraction(entries, out, SETTINGS, encoder, batch_size=16, num_workers=num_workers, wait=True).run()
    if results is not None:
        results.put([one.entry.slide_id for one in outcomes if one.status == "written"])


def test_kill_9_at_random_moments_costs_the_slide_in_hand_alone(entries, tmp_path):
    draw, seen, killed = random.Random(0), [], 0
    for round_ in range(5):
        process = FORK.Process(target=extract, args=(entries, tmp_path, MeanColour(seconds=0.03)))
        process.start()
        while round_ > 0 and len(files(tmp_path)) <= len(seen[-1]) and process.is_alive():
            time.sleep(0.01)  # some progress in each round, however slow the machine
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        seen.append(files(tmp_path))
        for name in seen[-1]:
            stored = read_slide(tmp_path / "features" / name)
            assert np.isfinite(stored.features).all(), "whole, or not there"
    assert killed >= 3, "the moments came too late to be a test"
    assert any(0 < len(found) < len(entries) for found in seen)
    Extraction(entries, tmp_path, SETTINGS, MeanColour()).run()
    final = files(tmp_path)
    assert len(final) == len(entries)
    for found in seen:
        assert found.items() <= final.items(), "a complete file is never written again"
    assert not leftovers(tmp_path), "neither parts nor claims"
    fresh = tmp_path / "fresh"
    for outcome in Extraction(entries, fresh, SETTINGS, MeanColour()).run():
        interrupted, straight = (read_slide(out / "features" / outcome.path.name) for out in (tmp_path, fresh))
        np.testing.assert_array_equal(interrupted.features, straight.features)
        np.testing.assert_array_equal(interrupted.tumour_fraction, straight.tumour_fraction)


def test_two_processes_share_a_folder(entries, tmp_path):
    results = FORK.Queue()
    pair = [FORK.Process(target=extract, args=(entries, tmp_path, MeanColour(0.03), results, 0)) for _ in range(2)]
    for process in pair:
        process.start()
    written = [results.get(timeout=60) for _ in pair]
    for process in pair:
        process.join()
        assert process.exitcode == 0
    assert sorted(written[0] + written[1]) == sorted(entry.slide_id for entry in entries), "each slide once"
    assert all(written), "both had work"
    assert not leftovers(tmp_path)


def test_the_survivor_takes_over_from_a_killed_process(entries, tmp_path):
    slow = FORK.Process(target=extract, args=(entries[:1], tmp_path, MeanColour(seconds=60)))
    slow.start()
    while not list(tmp_path.glob(".claims/*.claim")):
        time.sleep(0.01)
    results = FORK.Queue()
    other = FORK.Process(target=extract, args=(entries[:1], tmp_path, MeanColour(), results, 0))
    other.start()
    other.join(1)
    assert other.is_alive(), "it waits for the slide that the first has in hand"
    os.kill(slow.pid, signal.SIGKILL)
    slow.join()
    assert results.get(timeout=30) == [entries[0].slide_id]
    other.join()
