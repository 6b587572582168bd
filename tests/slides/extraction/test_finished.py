"""Restarts and shared folders: nothing is opened twice, whoever finished it, and every process writes whole tables."""

import builtins
import io
import os
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.core.ledger import Ledger
from kd_mil.core.shards import Shard
from kd_mil.slides.extraction.claims import Claims
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.results import write_tables, write_together
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

CUTTING = Cutting(TilingSettings(tile_size=32, mpp=1.0), mpp=1.0)


@pytest.fixture
def entries(tmp_path):
    """Six small slides with a square of tissue each."""
    folder, rng = tmp_path / "slides", np.random.default_rng(0)
    folder.mkdir()
    for number in range(6):
        pixels = np.full((256, 256, 3), 240, np.uint8)
        pixels[32 : 160 + number, 32:192] = rng.integers((150, 60, 120), (220, 120, 180), (128 + number, 160, 3))
        Image.fromarray(pixels).save(folder / f"s{number}.png")
    return list_slides(folder)


class Opened:
    """Names of the files that were opened, by Python or by HDF5."""

    def __init__(self, monkeypatch):
        self.names = []
        for owner, name in ((builtins, "open"), (io, "open"), (h5py, "File")):
            original = getattr(owner, name)

            def noted(path, *arguments, original=original, **named):
                self.names.append(os.fspath(path) if isinstance(path, (str, os.PathLike)) else "")
                return original(path, *arguments, **named)

            monkeypatch.setattr(owner, name, noted)

    def of(self, *suffixes):
        return [name for name in map(str, self.names) if name.endswith(suffixes)]


def test_a_restart_opens_no_slide_and_no_result_but_the_ledger_once(entries, tmp_path, monkeypatch):
    first = Extraction(entries, tmp_path / "out", CUTTING).run()
    opened = Opened(monkeypatch)
    again = Extraction(entries, tmp_path / "out", CUTTING)
    outcomes = again.run()
    assert [outcome.status for outcome in outcomes] == ["kept"] * 6
    assert [replace(outcome, status="written") for outcome in outcomes] == first
    assert opened.of(".png", ".h5", ".claim") == []
    assert len(opened.of(".jsonl")) == 1


@pytest.mark.parametrize("change", ["slide", "file", "ledger"])
def test_what_the_ledger_cannot_vouch_for_is_looked_into(entries, tmp_path, monkeypatch, change):
    out = tmp_path / "out"
    Extraction(entries, out, CUTTING).run()
    path = {"slide": entries[2].path, "file": out / "patches" / "s2_patches.h5"}.get(change)
    if path is None:
        next((out / ".finished").iterdir()).unlink()
    else:
        os.utime(path, (1, 1))
    opened = Opened(monkeypatch)
    outcomes = Extraction(entries, out, CUTTING).run()
    assert [outcome.status for outcome in outcomes] == ["kept"] * 6
    assert {name.rsplit("/", 1)[-1] for name in opened.of(".h5")} == (
        {"s2_patches.h5"} if path else {f"s{number}_patches.h5" for number in range(6)}
    )
    opened.names.clear()
    Extraction(entries, out, CUTTING).run()
    assert opened.of(".png", ".h5") == [], "now it is known again"


def test_other_settings_are_refused_though_the_ledger_says_finished(entries, tmp_path):
    Extraction(entries, tmp_path / "out", CUTTING).run()
    other = replace(CUTTING, tiling=replace(CUTTING.tiling, min_tissue=0.5))
    with pytest.raises(UserError, match=r"tiling\.min_tissue was 0\.25 and is 0\.5"):
        Extraction(entries, tmp_path / "out", other).run()


def test_a_process_leaves_slides_in_other_hands_unless_it_is_to_wait(entries, tmp_path):
    out = tmp_path / "out"
    with Claims(out / ".claims") as other:
        other.take("s1")
        extraction = Extraction(entries, out, CUTTING)
        outcomes = extraction.run()
        assert [outcome.status for outcome in outcomes] == ["written", "pending", *["written"] * 4]
        everything = write_together(entries, extraction, lambda found: write_tables(found, out))
        assert [outcome.status for outcome in everything][1] == "pending"
    assert pd.read_csv(out / "summary.csv").status[1] == "pending"
    assert pd.read_csv(out / "manifest.csv").slide_id.tolist() == ["s0", "s2", "s3", "s4", "s5"]
    assert [one.status for one in Extraction(entries, out, CUTTING, wait=True).run()][1] == "written"


def test_each_shard_does_its_part_and_the_last_one_writes_whole_tables(entries, tmp_path):
    out, statuses = tmp_path / "out", []
    for index in range(3):
        mine = [entry for entry in entries if Shard(index, 3).holds(entry.slide_id)]
        extraction = Extraction(mine, out, CUTTING)
        assert {one.status for one in extraction.run()} <= {"written"}
        everything = write_together(entries, extraction, lambda found: write_tables(found, out))
        statuses.append([outcome.status for outcome in everything].count("pending"))
    assert statuses == sorted(statuses, reverse=True)
    assert statuses[-1] == 0
    assert pd.read_csv(out / "manifest.csv").slide_id.tolist() == [entry.slide_id for entry in entries]
    assert pd.read_csv(out / "summary.csv").tiles.min() > 0


def test_the_failures_of_other_shards_stand_in_the_tables(entries, tmp_path):
    out = tmp_path / "out"
    entries[0].path.write_bytes(b"no image")
    failed = Extraction(entries[:2], out, CUTTING).run()[0]
    other = Extraction(entries[2:], out, CUTTING)
    other.run()
    everything = write_together(entries, other, lambda found: write_tables(found, out))
    assert (everything[0].status, everything[0].message) == ("failed", failed.message)


def test_tables_are_written_again_while_others_finish(entries, tmp_path):
    """Another process finishes a slide just while this one writes its tables: the tables have it in the end."""
    out, ledger = tmp_path / "out", None
    extraction = Extraction(entries[:5], out, CUTTING)
    extraction.run()
    written = []

    def write(found):
        nonlocal ledger
        if ledger is None:
            ledger = Ledger(out / ".finished")
            ledger.add("s5", {"status": "written", "tiles": 7, "key": "k"})
        written.append([outcome.status for outcome in found])

    everything = write_together(entries, extraction, write)
    assert [statuses[-1] for statuses in written] == ["pending", "kept"]
    assert everything[-1].tiles == 7
