"""Feature sets as other tools leave them, read without conversion; and export, read back as those tools read it."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.layouts import feature_table
from kd_mil.data.features.listing import list_features
from kd_mil.data.features.manifest import read_manifest
from kd_mil.data.features.remote import RemoteFiles

SIZES = {"a": 3, "b": 1, "c": 4, "d": 2, "e": 3, "f": 2}
LABELS = {name: int(name in "bdf") for name in SIZES}
SPLITS = dict(zip(SIZES, ("train", "train", "val", "val", "test", "test"), strict=True))
FEATURES = {name: np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32).round(2)
            for seed, (name, n) in enumerate(SIZES.items())}  # fmt: skip
COORDS = {name: np.arange(2 * n).reshape(n, 2) * 256 for name, n in SIZES.items()}


def listed(source):
    return list_features(source, RemoteFiles(Path("cache"))).entries


def write_h5(path, keys=("features", "coords"), **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[keys[0]], file[keys[1]] = FEATURES[path.stem], COORDS[path.stem]
        file.attrs.update(attributes)


def labels_csv(path, header, row):
    path.write_text("\n".join([header, *(row(name) for name in SIZES)]) + "\n")
    return path


def clam(root):
    for name in SIZES:
        write_h5(root / "h5_files" / f"{name}.h5")
        (root / "pt_files").mkdir(exist_ok=True)
        torch.save(torch.from_numpy(FEATURES[name]), root / "pt_files" / f"{name}.pt")
    labels = labels_csv(root / "dataset.csv", "case_id,slide_id,label", lambda name: f"p{name},{name},{LABELS[name]}")
    return root, labels


def clam_without_h5(root):
    folder, labels = clam(root)
    for path in (root / "h5_files").iterdir():
        path.unlink()
    (root / "h5_files").rmdir()
    return folder, labels


def trident(root):
    for name in SIZES:
        write_h5(root / "20x_256px_0px_overlap" / "features_uni_v1" / f"{name}.h5")
    labels = labels_csv(root / "labels.csv", "slide_id,label", lambda name: f"{name}.svs,{LABELS[name]}")
    return root / "20x_256px_0px_overlap" / "features_uni_v1", labels


def stamp(root):
    for name in SIZES:
        write_h5(root / f"{name}.h5", ("feats", "coords"), unit="um", tile_size_um=256.0, tile_size_px=224)
    labels = labels_csv(root / "slides.csv", "PATIENT,FILENAME,label", lambda name: f"p{name},{name}.h5,{LABELS[name]}")
    return root, labels


def torchmil(root):
    """As its Camelyon16: features of one encoder, patch labels (N, 1)."""
    folder = root / "patches_512"
    for kind in ("features/features_UNI", "labels", "coords", "patch_labels"):
        (folder / kind).mkdir(parents=True)
    for name, count in SIZES.items():
        np.save(folder / "features" / "features_UNI" / f"{name}.npy", FEATURES[name])
        np.save(folder / "labels" / f"{name}.npy", np.array([LABELS[name]]))
        np.save(folder / "coords" / f"{name}.npy", COORDS[name])
        np.save(folder / "patch_labels" / f"{name}.npy", np.full((count, 1), LABELS[name]))
    labels_csv(root / "splits.csv", "bag_name,split", lambda name: f"{name},{SPLITS[name]}")
    return folder, None


def dsmil(root):
    folder = root / "datasets" / "Own"
    (folder / "0-normal").mkdir(parents=True)
    for name in SIZES:
        pd.DataFrame(FEATURES[name]).to_csv(folder / "0-normal" / f"{name}.csv", index=False, float_format="%.4f")
    labels = labels_csv(folder / "Own.csv", "0,label", lambda name: f"datasets/Own/0-normal/{name}.csv,{LABELS[name]}")
    return labels, None


@pytest.mark.parametrize("layout", [clam, clam_without_h5, trident, stamp, torchmil, dsmil])
@pytest.mark.filterwarnings("ignore:feature files with coordinates in micrometres")
def test_sets_are_read_as_they_are(layout, tmp_path):
    source, labels = layout(tmp_path)
    manifest = read_manifest(source, labels=labels)
    assert dict(zip(manifest.slide_ids, manifest.labels.tolist(), strict=True)) == LABELS
    data = FeatureBags(
        str(source),
        Loading(),
        labels=None if labels is None else str(labels),
        dtype="float32",
        num_folds=3,
        val_fraction=0.3,
        cache_dir=str(tmp_path / "cache"),
    )
    bags = data.load().bags
    assert bags.sizes.tolist() == list(SIZES.values())
    torch.testing.assert_close(bags.instances, torch.from_numpy(np.concatenate(list(FEATURES.values()))))
    if layout in (clam, stamp):
        assert bags.case_ids == [f"p{name}" for name in SIZES]
    if layout in (clam, trident, torchmil):
        assert torch.equal(bags.coords, torch.from_numpy(np.concatenate(list(COORDS.values()))))
    if layout is torchmil:
        assert manifest.splits == list(SPLITS.values())
        assert bags.instance_labels.tolist() == [LABELS[name] for name, count in SIZES.items() for _ in range(count)]


@pytest.mark.parametrize("layout", [clam, clam_without_h5, trident, stamp, torchmil, dsmil])
def test_prediction_finds_the_files_of_training(layout, tmp_path):
    source, labels = layout(tmp_path)
    manifest = read_manifest(source, labels=labels)
    found = {entry.slide_id: entry.path.absolute() for entry in listed(source)}
    assert found == dict(zip(manifest.slide_ids, (path.absolute() for path in manifest.feature_paths), strict=True))


def test_one_folder_of_several_encoders_must_be_chosen(tmp_path):
    folder, _ = torchmil(tmp_path)
    (folder / "features" / "features_CONCH").mkdir()
    for read in (feature_table, listed):
        with pytest.raises(UserError, match="give one of its folders features_CONCH, features_UNI"):
            read(folder)


def test_two_files_of_one_slide_are_refused(tmp_path):
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).touch()
    for read in (feature_table, listed):
        with pytest.raises(UserError, match=r"slide 'a' has two files, .*a\.npy and .*a\.npz: remove one"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("slide_id,label\na,0\nx,1\n", r"line 3: slide 'x' is not among the 6 feature files of "),
        ("slide_id,label\nA.svs,0\n", r"line 2: slide 'A\.svs' is not among .*; known: a, b"),
        ("name,label\na,0\n", r"column 'slide_id' \(STAMP: 'FILENAME'\) is missing"),
    ],
)
def test_labels_that_do_not_fit_are_named(csv, message, tmp_path):
    folder, _ = clam(tmp_path)
    (tmp_path / "labels.csv").write_text(csv)
    with pytest.raises(UserError, match=message):
        feature_table(folder, tmp_path / "labels.csv")


def test_slides_without_a_label_are_left_out(tmp_path):
    folder, _ = clam(tmp_path)
    (tmp_path / "labels.csv").write_text("slide_id,label\nc,1\na,0\n")
    assert feature_table(folder, tmp_path / "labels.csv")[0]["slide_id"].tolist() == ["c", "a"]


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no feature files"):
        feature_table(tmp_path / "empty")
    folder, _ = clam(tmp_path / "clam")
    with pytest.raises(UserError, match="column 'label' is missing"):
        read_manifest(folder)
    folder, _ = torchmil_without_a_label(tmp_path)
    with pytest.raises(UserError, match=r"b\.npy is missing"):
        feature_table(folder)
    list_, _ = dsmil(tmp_path / "dsmil")
    moved = list_.rename(tmp_path / "Own.csv")
    with pytest.raises(UserError, match="in its folder or in one above"):
        feature_table(moved)
    with pytest.raises(UserError, match="go with a folder"):
        feature_table(moved, labels=moved)


def test_a_missing_file_of_a_list_is_its_own_fault_while_others_are_there(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((2, 3)))
    np.save(tmp_path / "outside.npy", np.zeros((2, 3)))
    path = tmp_path / "in" / "list.csv"
    path.write_text("slide_id,feature_path\na,a.npy\nb,b.npy\nc,../outside.npy\n")
    first, second, third = listed(path)
    assert (first.path, first.fault) == (tmp_path / "in" / "a.npy", "")
    assert "list.csv, line 3: there is no feature file" in second.fault
    assert "list.csv, line 4: feature_path '../outside.npy' leaves" in third.fault
    path.write_text("slide_id,feature_path\nb,b.npy\nc,../outside.npy\n")
    with pytest.raises(UserError, match=r"list\.csv, line 2: there is no feature file"):
        listed(path)


def torchmil_without_a_label(root):
    (root / "torchmil").mkdir()
    folder, labels = torchmil(root / "torchmil")
    (folder / "labels" / "b.npy").unlink()
    return folder, labels
