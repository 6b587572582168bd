"""The command `kd_mil.export`: what it writes has the layout of each tool, and reads back."""

import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from kd_mil import export
from kd_mil.data.features.exports.export import exported
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.manifest import read_manifest
from kd_mil.slides.extraction.store import slide_file
from kd_mil.slides.label_columns import LabelColumns
from tests.support.feature_stores import CLASSES, LABELS, SIZES, features_of, write_store


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["export", *map(str, overrides)])
        code = 0
        try:
            export.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")


def test_clam_reads_what_was_exported(command, store, tmp_path):
    code, printed, errors = command(f"features={store}", "format=clam", "out=out")
    assert code == 0, errors
    assert "3 slides" in printed
    out = tmp_path / "out"
    for name, count in SIZES.items():
        tensor = torch.load(out / "pt_files" / f"{name}.pt", weights_only=True)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), features_of(store, name))
        with h5py.File(out / "h5_files" / f"{name}.h5") as file:
            assert file["features"].dtype == np.float32
            assert file["coords"].dtype == np.int32
            assert file["coords"].shape == (count, 2)
            np.testing.assert_array_equal(file["features"], tensor)
    dataset = pd.read_csv(out / "dataset.csv")
    assert dataset.columns.tolist() == ["case_id", "slide_id", "label"]
    assert dataset.label.map({"normal": 0, "tumour": 1}).tolist() == [0, 1, 1]
    splits = pd.read_csv(out / "splits" / "splits_0.csv", dtype=dataset.slide_id.dtype)  # as CLAM's return_splits
    assert {part: splits[part].dropna().tolist() for part in ("train", "val", "test")} == {
        "train": ["s1"],
        "val": ["s2"],
        "test": ["s3"],
    }
    chosen = pd.read_csv(out / "splits" / "splits_0_bool.csv", index_col=0)
    assert chosen.loc["s2"].tolist() == [False, True, False]
    counts = pd.read_csv(out / "splits" / "splits_0_descriptor.csv", index_col=0)
    assert counts.loc["tumour"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("layout", ["clam", "torchmil"])
def test_positions_in_micrometres_become_pixels_by_the_mpp_of_the_table(command, tmp_path, layout):
    """As STAMP keeps them; at 0.5 µm per pixel 256 µm are 512 pixels."""
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["feats"], file["coords"] = np.ones((2, 4), np.float32), np.array([[0.0, 0.0], [256.0, 0.0]])
            file.attrs.update({"unit": "um", "tile_size_um": 256.0, "extractor": "x"})
    (tmp_path / "t.csv").write_text("slide_id,label,feature_path,mpp\na,0,a.h5,0.5\nb,1,b.h5,0.25\n")
    code, _, errors = command("features=t.csv", f"format={layout}", "out=out")
    assert code == 0, errors
    found = {}
    for name in ("a", "b"):
        if layout == "torchmil":
            found[name] = np.load(tmp_path / "out" / "coords" / f"{name}.npy")
        else:
            with h5py.File(tmp_path / "out" / "h5_files" / f"{name}.h5") as file:
                found[name] = file["coords"][()]
    assert [found[name].tolist() for name in ("a", "b")] == [[[0, 0], [512, 0]], [[0, 0], [1024, 0]]]


def test_torchmil_reads_what_was_exported(command, store, tmp_path):
    code, _, errors = command(f"features={store}", "format=torchmil", "out=out", "classes=[normal,tumour]")
    assert code == 0, errors
    out = tmp_path / "out"
    for name, count in SIZES.items():
        np.testing.assert_array_equal(np.load(out / "features" / f"{name}.npy"), features_of(store, name))
        assert np.load(out / "coords" / f"{name}.npy").shape == (count, 2)
    assert [np.load(out / "labels" / f"{name}.npy").tolist() for name in SIZES] == [[0], [1], [1]]
    assert np.load(out / "patch_labels" / "s1.npy").tolist() == [0, 1, 1]
    assert not (out / "patch_labels" / "s3.npy").exists(), "unknown"
    splits = pd.read_csv(out / "splits.csv")
    assert splits.bag_name[splits.split == "test"].tolist() == ["s3"]


def test_the_threshold_makes_patch_labels(command, store, tmp_path):
    command(f"features={store}", "format=torchmil", "out=out", "classes=[normal,tumour]", "tumour_threshold=0.6")
    assert np.load(tmp_path / "out" / "patch_labels" / "s1.npy").tolist() == [0, 0, 1]


def test_an_export_reads_back(command, store, tmp_path):
    original = read_manifest(store / "manifest.csv", CLASSES)
    command(f"features={store / 'manifest.csv'}", "format=clam", "out=clam")
    command("features=clam", "labels=clam/dataset.csv", "format=torchmil", "out=torchmil", "classes=[normal,tumour]")
    for manifest in (
        read_manifest(tmp_path / "clam", CLASSES, labels=tmp_path / "clam" / "dataset.csv"),
        read_manifest(tmp_path / "torchmil"),
    ):
        assert manifest.slide_ids == original.slide_ids
        assert manifest.labels.tolist() == original.labels.tolist()
        for ours, theirs in zip(original.feature_paths, manifest.feature_paths, strict=True):
            one, other = FeatureFile(ours), FeatureFile(theirs)
            everything = torch.arange(one.num_instances)
            assert torch.equal(one.read(everything, torch.float32), other.read(everything, torch.float32))
            assert torch.equal(one.coords(), other.coords())


def test_stamp_reads_what_was_exported(command, store, tmp_path):
    """Its `get_coords` wants µm and their tile size, its `BagDataset` `feats`, its slide table names with `.h5`."""
    code, _, errors = command(f"features={write_store(store, cases=SIZES)}", "format=stamp", "out=out")
    assert code == 0, errors
    out = tmp_path / "out"
    slides = pd.read_csv(out / "slide.csv", usecols=["PATIENT", "FILENAME"], dtype=str)
    assert slides.FILENAME.tolist() == ["s1.h5", "s2.h5", "s3.h5"]
    clini = pd.read_csv(out / "clini.csv", dtype=str)
    assert dict(zip(clini.PATIENT, clini.label, strict=True)) == dict(zip(slides.PATIENT, LABELS, strict=True))
    for name in SIZES:
        with h5py.File(out / "features" / f"{name}.h5") as file, h5py.File(slide_file(store, name)) as own:
            np.testing.assert_array_equal(file["feats"], features_of(store, name))
            np.testing.assert_allclose(file["coords"], own["coords"][:] * 0.25)
            assert file.attrs["unit"] == "um"
            assert float(file.attrs["tile_size_um"]) == 128 * 0.25
            assert int(file.attrs["tile_size_px"]) == 64
    read = read_manifest(
        out / "features", CLASSES, labels=out / "slide.csv", columns=LabelColumns("label", out / "clini.csv")
    )
    assert read.labels.tolist() == [0, 1, 1]
    back = FeatureFile(read.feature_paths[0])
    assert torch.equal(back.coords(slide_mpp=0.25), FeatureFile(slide_file(store, "s1")).coords())


def test_stamp_has_one_label_for_a_patient(command, store):
    code, _, errors = command(f"features={store}", "format=stamp", "out=out")
    assert code == 2
    assert "slides of case 'p1' are labelled 'normal' and 'tumour': STAMP has one label for each patient" in errors


def test_trident_layout_is_read_by_torchmil(command, store, tmp_path):
    code, _, errors = command(f"features={store}", "format=trident", "out=out", "classes=[normal,tumour]")
    assert code == 0, errors
    job = tmp_path / "out" / "20x_64px_0px_overlap"
    for name in SIZES:
        with h5py.File(job / "patches" / f"{name}_patches.h5") as file, h5py.File(slide_file(store, name)) as own:
            np.testing.assert_array_equal(file["coords"], own["coords"])
            assert file["coords"].attrs["patch_size_level0"] == 128
        with h5py.File(job / "features_unknown" / f"{name}.h5") as file:
            assert file["features"].dtype == np.float32
            np.testing.assert_array_equal(file["features"], features_of(store, name))
    assert pd.read_csv(tmp_path / "out" / "labels.csv").label.tolist() == [0, 1, 1]
    read = read_manifest(job / "features_unknown", labels=tmp_path / "out" / "labels.csv")
    assert read.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("layout", ["stamp", "trident"])
def test_what_a_tool_needs_and_a_file_does_not_say_is_one_line(command, tmp_path, layout):
    (tmp_path / "plain").mkdir()
    with h5py.File(tmp_path / "plain" / "s1.h5", "w") as file:
        file["features"], file["coords"] = np.ones((4, 3)), [[0, 0], [256, 0], [512, 0], [768, 0]]
    code, _, errors = command("features=plain", f"format={layout}", "out=out")
    assert code == 2
    assert "per pixel" in errors.splitlines()[-1] or "their resolution" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["format=clam", "out=out"], "features= is not set"),
        (["features=store", "format=clam"], "out= is not set"),
        (
            ["features=store", "format=eva", "out=out"],
            "choose clam, stamp, torchmil, trident, spatialdata, safetensors, ",
        ),
        (
            ["features=store", "format=torchmil", "out=out"],
            "name the classes in order",
        ),
        (
            ["features=store", "format=torchmil", "out=out", "classes=[normal]"],
            "label 'tumour' is outside the classes",
        ),
        (["features=store", "format=clam", "out=store"], "is where the features are"),
        (["features=store/features", "format=stamp", "out=store"], "is where the features are"),
        (["features=store", "format=stamp", "out=store/features"], "is where the features are"),
        (["features=nowhere", "format=clam", "out=out"], "nowhere"),
        (["features=store/features", "format=torchmil", "out=out"], "torchmil needs labels"),
        (["features=store", "format=clam", "out=out", "tumour_threshold=2"], "tumour_threshold=2"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(command, store, tmp_path, overrides, words):
    code, _, errors = command(*overrides)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert words in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["clam", "torchmil"])
def test_what_cannot_be_read_is_listed_and_the_rest_is_done(command, store, tmp_path, layout):
    """A damaged file, NaN, and one that is not there; tables are of what was written."""
    damaged, missing = slide_file(store, "s3"), slide_file(store, "s2")
    ask = (f"features={store}", f"format={layout}", "out=out", "classes=[normal,tumour]")
    damaged.write_bytes(damaged.read_bytes()[:500])
    missing.unlink()
    code, printed, errors = command(*ask)
    assert code == 0, errors
    assert "1 slides in" in printed
    assert "2 could not be read: see summary.csv" in printed
    summary = pd.read_csv(tmp_path / "out" / "summary.csv", keep_default_na=False)
    assert summary["slide_id"].tolist() == ["s1", "s2", "s3"]
    assert summary["status"].tolist() == ["written", "failed", "failed"]
    assert "s2.h5" in summary["message"][1]
    assert "s3.h5" in summary["message"][2]
    if layout == "clam":
        assert pd.read_csv(tmp_path / "out" / "dataset.csv").slide_id.tolist() == ["s1"]
    else:
        assert pd.read_csv(tmp_path / "out" / "splits.csv").bag_name.tolist() == ["s1"]
    with h5py.File(slide_file(store, "s1"), "r+") as file:
        file["features"][0, 0] = np.nan
    code, _, errors = command(*ask[:2], "out=none", *ask[3:])
    assert code == 2
    assert "no slide could be read" in errors.splitlines()[-1]
    assert not (tmp_path / "none").exists()


def test_whatever_one_slide_raises_the_others_are_written(tmp_path):
    table = pd.DataFrame({"slide_id": ["a", "b", "c"], "feature_path": ["a.npy", "b.npy", "c.npy"]})
    for name in table["feature_path"]:
        np.save(tmp_path / name, np.zeros((2, 3)))
    faults = {"a": RecursionError("too deep"), "b": MemoryError(), "c": None}

    def write(row, bag):
        if faults[row["slide_id"]] is not None:
            raise faults[row["slide_id"]]

    summary = exported(table, tmp_path, tmp_path / "out", write)
    assert summary["status"].tolist() == ["failed", "failed", "written"]
    assert summary["message"].tolist() == ["RecursionError: too deep", "out of memory", ""]
    faults["b"] = OSError("No space left on device")
    with pytest.raises(OSError, match="No space left"):
        exported(table, tmp_path, tmp_path / "out", write)


@pytest.mark.parametrize("slide_id", ["../../outside", "/outside", "a/b", "..", "=x"])
def test_ids_lead_nowhere_else(command, store, tmp_path, slide_id):
    (store / "manifest.csv").write_text(f"slide_id,feature_path\n{slide_id},features/s1.h5\n")
    code, _, errors = command(f"features={store}", "format=clam", "out=out")
    assert code == 2
    assert "manifest.csv, line 2: id" in errors
    (store / "manifest.csv").write_text("slide_id,feature_path\ns1,features/s1.h5\ns1,features/s2.h5\n")
    assert "line 3: slide 's1' is listed twice" in command(f"features={store}", "format=clam", "out=out")[2]
    assert not (tmp_path / "out").exists()
