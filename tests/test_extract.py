"""The command `kd_mil.extract`: what it leaves, that it trains, and one clear line for each mistake."""

import json
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import openslide
import pandas as pd
import pytest

from kd_mil import extract
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.manifest import read_manifest
from kd_mil.data.tiles.slides import SlideBags
from kd_mil.slides.annotations.annotations import AnnotationSettings
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings
from tests.support.command import kd_mil
from tests.support.killing import start

TILES = ["tiling.tile_size=64", "tiling.magnification=null", "tiling.mpp=1.0"]
SMALL = [*TILES, "encoder=timm", "encoder.name=test_resnet", "device=cpu"]
BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>
<ASAP_Annotations><Annotations><Annotation PartOfGroup="&y;"/></Annotations></ASAP_Annotations>"""


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["extract", *map(str, overrides)])
        code = 0
        try:
            extract.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    settings = SyntheticSettings(slides=10, size=768, mpp=1.0)
    return build_synthetic_slides(tmp_path_factory.mktemp("slides"), settings, seed=0)


def test_features_and_tables_are_there_and_ready_to_train_on(command, slides, tmp_path, recwarn):
    code, printed, errors = command(f"slides={slides}", "out=out", *SMALL)
    assert code == 0, errors
    assert any("test_resnet has random weights" in str(warning.message) for warning in recwarn)
    assert "written" in printed
    out = tmp_path / "out"
    summary = pd.read_csv(out / "summary.csv")
    assert summary.status.tolist() == ["written"] * 10
    files = ["contours", "features", "index.html", "manifest.csv", "qc", "settings.json", "summary.csv"]
    assert sorted(os.listdir(out)) == [".finished", *files]
    assert len(os.listdir(out / "qc")) == len(os.listdir(out / "contours")) == 10
    manifest = read_manifest(out / "manifest.csv", ["negative", "positive"])
    expected = pd.read_csv(slides)
    assert manifest.slide_ids == expected.slide_id.tolist()
    assert manifest.case_ids == expected.case_id.tolist()
    assert manifest.splits == expected.split.tolist()
    assert [manifest.class_names[label] for label in manifest.labels] == expected.label.tolist()
    assert [one.slide_id for one in list_slides(out / "manifest.csv")] == manifest.slide_ids, "a slide list, too"
    stored = read_slide(manifest.feature_paths[0])
    assert stored.attributes["encoder"]["config"]["name"] == "test_resnet"
    assert stored.attributes["tissue"]["closing_um"] == 32.0
    assert json.loads((out / "settings.json").read_text())["encoder"] == stored.attributes["encoder"]


def test_a_tiling_that_the_encoder_was_not_trained_on_is_a_warning(command, slides, recwarn):
    command(f"slides={slides}", "out=out", *SMALL, "encoder.mpp=[1.04,2.0]")
    assert not any("was trained on" in str(warning.message) for warning in recwarn)
    command(f"slides={slides}", "out=other", *SMALL, "encoder.mpp=0.5")
    expected = "test_resnet was trained on 0.5 µm per pixel, but tiles have 1: tiling.mpp=0.5 tiling.magnification=null"
    assert expected in [str(warning.message) for warning in recwarn]


def test_the_manifest_makes_bags_with_tumour_labels_from_the_threshold_on(command, slides, tmp_path, capsys):
    command(f"slides={slides}", "out=out", *SMALL)
    counts = {}
    for threshold in (0.05, 0.25, 0.9):
        data = FeatureBags(
            str(tmp_path / "out" / "manifest.csv"),
            Loading(),
            classes=["negative", "positive"],
            tumour_threshold=threshold,
            cache_dir=str(tmp_path / "cache"),
        )
        data.setup()
        labels = data.bags.instance_labels
        fractions = np.concatenate([read_slide(path).tumour_fraction for path in sorted(tmp_path.glob("out/*/*.h5"))])
        assert labels.tolist() == (fractions >= threshold).astype(int).tolist()
        counts[threshold] = int(labels.sum())
        assert f"(from {threshold:.0%} of their area on)" in capsys.readouterr().out
        assert data.instance_source["tumour_threshold"] == threshold
    assert counts[0.05] > counts[0.25] > counts[0.9]


def test_the_fold_column_of_the_slides_stays_in_the_manifest(command, slides, tmp_path):
    listed = pd.read_csv(slides).drop(columns="split").assign(fold=[index % 3 for index in range(10)], age=71)
    for column in ("slide_path", "annotation_path"):
        listed[column] = [slides.parent / name for name in listed[column]]
    listed.to_csv(tmp_path / "folds.csv", index=False)
    code, _, errors = command("slides=folds.csv", "out=out", *SMALL)
    assert (code, errors) == (0, "")
    manifest = str(tmp_path / "out" / "manifest.csv")
    data = FeatureBags(manifest, Loading(), classes=["negative", "positive"], fold=1, val_fraction=0.3)
    tested = [data.load().bags.bag_ids[bag] for bag in data.load().test.tolist()]
    assert tested == listed.slide_id[listed.fold == 1].tolist()
    assert [entry.fold for entry in list_slides(manifest)] == listed.fold.tolist()


@pytest.mark.parametrize("known", [True, False])
def test_slides_and_their_features_have_one_truth(command, slides, tmp_path, known):
    """Tiles of normal slides, of which no outlines exist, are negative in both or unknown in both."""
    listed = pd.read_csv(slides)
    listed["slide_path"] = [slides.parent / name for name in listed.slide_path]
    drawn = [slides.parent / str(name) for name in listed.annotation_path]
    listed["annotation_path"] = pd.Series(drawn).where(listed.label == "positive")
    listed.to_csv(tmp_path / "half.csv", index=False)
    chosen = ["slides=half.csv", f"negatives_known={str(known).lower()}", "annotations.mask_mpp=4.0"]
    assert command(*chosen, "out=out", *SMALL)[0] == 0
    how = {"classes": ["negative", "positive"], "cache_dir": str(tmp_path / "cache")}
    tiling, drawing = TilingSettings(tile_size=64, mpp=1.0), AnnotationSettings(mask_mpp=4.0)
    tiles = SlideBags(
        str(tmp_path / "half.csv"), Loading(), tiling, TissueSettings(), drawing, negatives_known=known, **how
    )
    features = FeatureBags(str(tmp_path / "out" / "manifest.csv"), Loading(), **how)
    tiles.setup()
    features.setup()
    assert features.bags.instance_labels.tolist() == tiles.bags.instance_labels.tolist()
    assert set(features.bags.instance_labels.tolist()) == ({0, 1} if known else {-1, 0, 1})


def test_columns_of_the_list_stay_and_run_in_no_spreadsheet(command, slides, tmp_path):
    slide = next((slides.parent / "slides").glob("*.tif"))
    (tmp_path / "list.csv").write_text(f"slide_path,slide_id,mpp,stage,note\n{slide},a,1.0,III,=1+1\n")
    assert command("slides=list.csv", "out=out", *TILES)[0] == 0
    assert pd.read_csv(tmp_path / "out" / "manifest.csv")[["stage", "note"]].values.tolist() == [["III", "'=1+1"]]


@pytest.mark.parametrize("content", ["", "{", "[]", None])
def test_damaged_settings_are_one_line(command, slides, tmp_path, content):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "settings.json"
    path.mkdir() if content is None else path.write_text(content)
    code, _, errors = command(f"slides={slides}", "out=out", *TILES)
    assert (code, errors.count("\n")) == (2, 1)
    assert "settings.json is damaged: remove it" in errors


def test_without_an_encoder_coordinates_alone_are_stored(command, slides, tmp_path):
    code, printed, _ = command(f"slides={slides}", "out=out", *TILES)
    assert code == 0
    assert "coordinates only" in " ".join(printed.split())
    stored = read_slide(tmp_path / "out" / "patches" / "synthetic_000_patches.h5")
    assert stored.features is None
    assert len(stored.tiles.coords) > 10
    assert pd.read_csv(tmp_path / "out" / "manifest.csv").coords_path[0] == "patches/synthetic_000_patches.h5"


def test_a_rerun_keeps_everything_and_other_settings_are_named(command, slides, tmp_path):
    command(f"slides={slides}", "out=out", *SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/features/*")}
    code, _, errors = command(f"slides={slides}", "out=out", *SMALL)
    assert (code, errors) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/features/*")} == times
    assert set(pd.read_csv(tmp_path / "out" / "summary.csv").status) == {"kept"}
    code, _, errors = command(f"slides={slides}", "out=out", *SMALL, "seed=1", "tissue=biopsy")
    assert code == 2
    assert errors.count("\n") == 1
    assert "tissue.mpp was 8.0 and is 4.0" in errors
    assert "encoder.weights was" in errors


def test_files_that_the_tables_leave_out_are_mentioned(command, slides, tmp_path):
    first, second = sorted((slides.parent / "slides").glob("*.tif"))[:2]
    assert "in no table" not in command(f"slides={first}", "mpp=1.0", "out=out", *TILES)[1]
    printed = command(f"slides={second}", "mpp=1.0", "out=out", *TILES)[1]
    assert "1 files of slides not asked for this time lie there too, and are in no table" in printed
    assert pd.read_csv(tmp_path / "out" / "manifest.csv").slide_id.tolist() == [second.stem]


def test_labels_come_from_a_table_and_unlabelled_slides_stay_out_of_the_manifest(command, slides, tmp_path):
    folder = slides.parent / "slides"
    (tmp_path / "labels.csv").write_text("slide_id,label\nsynthetic_001,b\nsynthetic_000,a\n")
    code, _, errors = command(f"slides={folder}", "mpp=1.0", "labels=labels.csv", "out=out", *TILES)
    assert code == 0, errors
    manifest = pd.read_csv(tmp_path / "out" / "manifest.csv")
    assert manifest.label.tolist() == ["a", "b"]
    assert len(pd.read_csv(tmp_path / "out" / "summary.csv")) == 10


def test_failures_are_listed_and_the_rest_is_done(command, slides, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(slides.parent / "slides", folder)
    (folder / "text.svs").write_text("this is no slide")
    (folder / "zero.svs").touch()
    cut = folder / "synthetic_003.tif"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    code, printed, _ = command(f"slides={folder}", "mpp=1.0", "out=out", *SMALL)
    assert code == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("slide_id")
    failed = summary[summary.status == "failed"]
    assert sorted(failed.index) == ["synthetic_003", "text", "zero"]
    assert "0 bytes" in failed.message["zero"]
    assert all(name in printed for name in failed.index)
    assert len(list(tmp_path.glob("out/features/*"))) == 9
    code, _, errors = command(f"slides={folder}", "mpp=1.0", "out=stop", "on_error=stop", *TILES)
    assert code == 2
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [errors.strip().splitlines()[-1]]
    assert "synthetic_003" in errors


def test_a_slide_or_annotation_that_is_missing_is_listed_and_the_rest_is_done(command, slides, tmp_path):
    good = slides.parent / "slides" / "synthetic_000.tif"
    rows = [f"{good},a,", "none.svs,b,", f"{good},c,none.xml", f"{good},d,{slides}"]
    (tmp_path / "list.csv").write_text("\n".join(["slide_path,slide_id,annotation_path", *rows[:3], ""]))
    code, _, errors = command("slides=list.csv", "mpp=1.0", "out=out", *TILES)
    assert (code, "line 4: annotation 'none.xml' does not exist" in errors) == (2, True)
    (tmp_path / "list.csv").write_text("\n".join(["slide_path,slide_id,annotation_path", *rows, ""]))
    code, _, errors = command("slides=list.csv", "mpp=1.0", "out=out", *TILES)
    assert code == 0, errors
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("slide_id")
    assert summary.status.tolist() == ["written", "failed", "failed", "failed"]
    assert summary.message["b"] == "slide 'none.svs' does not exist"
    assert summary.message["c"] == "slide 'c': annotation 'none.xml' does not exist"


def bad_inputs(folder: Path, slides: Path) -> dict[str, str]:
    """Overrides that name a bad input, by the words the error must have."""
    slide = slides.parent / "slides" / "synthetic_000.tif"
    whole = slide.read_bytes()
    (folder / "truncated.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.svs").touch()
    (folder / "text.svs").write_text("no slide")
    (folder / "missing.csv").write_text("slide_path\nnone.svs\n")
    (folder / "double.csv").write_text(f"slide_path,slide_id\n{slide},a\n{slide},a\n")
    (folder / "labels.csv").write_text("slide_id,label\nsynthetic_00x,1\n")
    (folder / "bomb.xml").write_text(BOMB)
    bow = [[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]
    properties = {"classification": {"name": "Tumor", "color": [200, 0, 0]}}
    crossed = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [bow]}, "properties": properties}
    (folder / "crossed.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [crossed]}))
    for name in ("bomb.xml", "crossed.geojson"):
        (folder / f"{name}.csv").write_text(f"slide_path,annotation_path,mpp\n{slide},{name},1.0\n")
    return {
        "truncated.svs": "slides=truncated.svs",
        "zero.svs": "slides=zero.svs",
        "text.svs": "slides=text.svs",
        "none.svs": "slides=missing.csv",
        "belongs to both": "slides=double.csv",
        "did you mean 'synthetic_00": f"slides={slides} labels=labels.csv",
        "bomb.xml": f"slides=bomb.xml.csv {' '.join(TILES)}",
        "out= is not set": "slides=zero.svs out=null",
        "slides= is not set": "on_error=stop",
        "no slides in": "slides=nowhere",
        "resnet19": "slides=zero.svs encoder=timm encoder.name=resnet19",
        "on_error=halt: choose skip or stop": "slides=zero.svs on_error=halt",
        "batch_size=0": "slides=zero.svs batch_size=0",
        "precision=half": "slides=zero.svs encoder=timm precision=half",
        "encoder.norm=layer: choose batch, group or none": "slides=zero.svs encoder=small_cnn encoder.norm=layer",
        "give one of them": "slides=zero.svs tiling.mpp=0.5",
        "no device": "slides=zero.svs encoder=timm device=abacus",
        "backend=vips: choose openslide or fastslide": "slides=zero.svs backend=vips",
        **{
            f"{name}={value}: must be": f"slides=zero.svs {name}={value}"  # "a number", "above 0", "at least 1"
            for name in ("mpp", "mpp_override", "tissue.mpp", "annotations.mask_mpp", "batch_size")
            for value in ("fine", "nan", "0", "-1", "true")
        },
        "magnification: give `mpp=`": f"slides={folder / 'plain.png'}",
    }


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_every_mistake_is_one_line_and_leaves_nothing(command, slides, tmp_path, on_error):
    from PIL import Image

    Image.new("RGB", (300, 300)).save(tmp_path / "plain.png")
    for words, overrides in bad_inputs(tmp_path, slides).items():
        code, _, errors = command(f"on_error={on_error}", "out=out", *overrides.split())
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert code == 2, words
        assert len(lines) == 1, errors
        assert words in lines[0]
        assert "Traceback" not in errors
        assert not (tmp_path / "out").exists(), words


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_self_intersecting_outline_is_mended_with_a_warning_or_refused(command, slides, tmp_path, on_error, recwarn):
    """A bow tie of two triangles: its area is theirs."""
    bad_inputs(tmp_path, slides)
    code, _, errors = command("slides=crossed.geojson.csv", "out=out", f"on_error={on_error}", *TILES)
    assert code == 0, errors
    assert "crossed.geojson" in errors + " ".join(str(warning.message) for warning in recwarn)
    stored = read_slide(tmp_path / "out" / "patches" / "synthetic_000_patches.h5")
    assert 0 < stored.tumour_fraction.max() <= 1


@pytest.mark.slow
def test_a_real_slide_from_the_command_line(shared_data, tmp_path):
    """TRIDENT's attributes, coordinates on its grid, pixels of OpenSlide: on an Aperio slide, in a real process."""
    slide = shared_data("slides") / "CMU-1-Small-Region.svs"
    overrides = [f"slides={slide}", "out=out", "encoder=timm", "encoder.name=test_vit", "tiling.tile_size=128"]
    kd_mil("extract", *overrides, "num_workers=1", "device=cpu", cwd=tmp_path)
    with h5py.File(tmp_path / "out" / "features" / "CMU-1-Small-Region.h5") as file:
        coords, attributes = file["coords"][:], dict(file["coords"].attrs)
        assert file["features"].shape == (len(coords), 64)
        assert np.isfinite(file["features"][:]).all()
    assert attributes["patch_size"] == attributes["patch_size_level0"] == 128
    assert (attributes["level0_width"], attributes["level0_height"]) == (2220, 2967)
    assert attributes["level0_magnification"] == attributes["target_magnification"] == 20
    assert (coords % 128 == 0).all()
    assert 100 < len(coords) < 18 * 24
    handle = openslide.OpenSlide(slide)
    inside = [np.asarray(handle.read_region((x, y), 0, (128, 128)).convert("RGB")) for x, y in coords[:40].tolist()]
    assert np.mean([tile.max() - tile.min() for tile in inside]) > 60, "tissue, not glass"
    assert os.listdir(tmp_path) == ["out"], "no other files"


@pytest.mark.slow
def test_the_command_survives_kill_9(slides, tmp_path):
    """Killed twice in the middle, as soon as there is some progress; its workers are left to themselves."""
    settings = [f"slides={slides}", "out=out", "num_workers=1", "batch_size=32", *SMALL, "encoder.name=resnet10t"]
    features, kept = tmp_path / "out" / "features", {}
    for _ in range(2):
        process = start(*settings, cwd=tmp_path, module="kd_mil.extract")
        while process.poll() is None and len(list(features.glob("*.h5"))) <= len(kept):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept |= {path.name: path.stat().st_mtime_ns for path in features.glob("*.h5")}
    assert 2 <= len(kept) < 10, "killed in the middle"
    kd_mil("extract", *settings, cwd=tmp_path)
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("path").status
    assert len(summary) == 10
    for name, time_ns in kept.items():
        assert (features / name).stat().st_mtime_ns == time_ns
        assert summary[f"features/{name}"] == "kept"
    assert all(np.isfinite(read_slide(path).features).all() for path in features.iterdir())
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert left == [".finished"], "a ledger, and neither parts nor claims"
