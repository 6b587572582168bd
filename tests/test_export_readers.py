"""What `kd_mil.export` writes, read by the tools' own classes: each where its tool can be imported.

torchmil and spatialdata are packages; STAMP, TRIDENT and CLAM are read where a checkout of theirs is on the path.
"""

import h5py
import numpy as np
import pandas as pd
import pytest

from kd_mil.data.features.exports.export import export_clam, export_torchmil
from kd_mil.data.features.exports.spatialdata import export_spatialdata
from kd_mil.data.features.exports.stamp import export_stamp
from kd_mil.data.features.exports.trident import export_trident
from kd_mil.data.features.files.layouts import feature_table
from kd_mil.slides.extraction.store import slide_file
from tests.support.feature_stores import CLASSES, LABELS, SIZES, features_of, write_store

POSITIVE = dict(zip(SIZES, (0, 1, 1), strict=True))
TRIDENT_JOB = "20x_64px_0px_overlap"


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", cases=SIZES)


def coords_of(store, name):
    with h5py.File(slide_file(store, name)) as file:
        return file["coords"][:]


def check_bags(bags, store):
    """Features and label of each bag, found by its size."""
    found = {len(bag["X"]): bag for bag in (bags[index] for index in range(len(bags)))}
    for name, count in SIZES.items():
        np.testing.assert_array_equal(found[count]["X"].numpy(), features_of(store, name))
        assert int(found[count]["Y"]) == POSITIVE[name]


def test_torchmil(store, tmp_path):
    datasets = pytest.importorskip("torchmil.datasets")
    export_torchmil(*feature_table(store), tmp_path / "out", CLASSES, 0.25)
    places = [f"{tmp_path}/out/{kind}/" for kind in ("features", "labels", "patch_labels", "coords")]
    check_bags(datasets.ProcessedMILDataset(*places, bag_keys=["X", "Y", "coords"]), store)
    known = datasets.ProcessedMILDataset(*places, bag_names=["s1", "s2"], bag_keys=["X", "y_inst", "adj", "coords"])
    assert known[0]["y_inst"].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(np.asarray(known[0]["coords"]), coords_of(store, "s1"))


def test_torchmil_of_trident(store, tmp_path):
    datasets = pytest.importorskip("torchmil.datasets")
    export_trident(*feature_table(store), tmp_path / "out", CLASSES)
    bags = datasets.TridentWSIDataset(
        f"{tmp_path}/out/{TRIDENT_JOB}/",
        f"{tmp_path}/out/labels.csv",
        feature_extractor="unknown",
        patch_size=64,
        wsi_name_col="slide_id",
        wsi_label_col="label",
        bag_keys=["X", "Y", "coords"],
    )
    check_bags(bags, store)


def test_trident(store, tmp_path):
    trident = pytest.importorskip("trident.IO")
    export_trident(*feature_table(store), tmp_path / "out", CLASSES)
    for name in SIZES:
        attributes, coords = trident.read_coords(str(tmp_path / "out" / TRIDENT_JOB / "patches" / f"{name}_patches.h5"))
        np.testing.assert_array_equal(coords, coords_of(store, name))
        assert [attributes[key] for key in ("patch_size", "patch_size_level0", "target_magnification")] == [64, 128, 20]


def test_stamp(store, tmp_path):
    data = pytest.importorskip("stamp.modeling.data")
    out = tmp_path / "out"
    export_stamp(*feature_table(store), out)
    patients = data.slide_to_patient_from_slide_table_(
        slide_table_path=out / "slide.csv",
        feature_dir=out / "features",
        patient_label="PATIENT",
        filename_label="FILENAME",
    )
    labels = data.patient_to_ground_truth_from_clini_table_(
        clini_table_path=out / "clini.csv", patient_label="PATIENT", ground_truth_label="label"
    )
    assert data.detect_feature_type(out / "features") == "tile"
    known = data.filter_complete_patient_data_(
        patient_to_ground_truth=labels, slide_to_patient=patients, drop_patients_with_missing_ground_truth=False
    )
    loader, categories = data.tile_bag_dataloader(
        patient_data=list(known.values()),
        bag_size=None,
        task="classification",
        batch_size=1,
        shuffle=False,
        num_workers=0,
        transform=None,
    )
    for name, label, (bags, coords, _, targets) in zip(known, LABELS, loader, strict=True):
        np.testing.assert_array_equal(bags[0].numpy(), features_of(store, name))
        np.testing.assert_allclose(coords[0].numpy(), coords_of(store, name) * 0.25)
        assert categories[int(targets[0].argmax())] == label


def test_clam(store, tmp_path):
    generic = pytest.importorskip("dataset_modules.dataset_generic")
    out = tmp_path / "out"
    export_clam(*feature_table(store), out)
    with pd.option_context("future.infer_string", False):  # it puts numbers into a column of words
        bags = generic.Generic_MIL_Dataset(
            out, csv_path=out / "dataset.csv", label_dict={"normal": 0, "tumour": 1}, print_info=False
        )
        parts = bags.return_splits(from_id=False, csv_path=out / "splits" / "splits_0.csv")
    for name, part in zip(SIZES, parts, strict=True):
        features, label = part[0]
        np.testing.assert_array_equal(features.numpy(), features_of(store, name))
        assert int(label) == POSITIVE[name]
        part.load_from_h5(True)
        np.testing.assert_array_equal(part[0][2], coords_of(store, name))


def test_spatialdata(store, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    export_spatialdata(*feature_table(store), tmp_path / "out", 0.25)
    for name, count in SIZES.items():
        slide = spatialdata.read_zarr(tmp_path / "out" / f"{name}.zarr")
        table, shapes = slide.tables["unknown_tiles"], slide.shapes["tiles"]
        np.testing.assert_array_equal(np.asarray(table.X), features_of(store, name))
        np.testing.assert_array_equal(shapes.geometry.bounds[["minx", "miny"]], coords_of(store, name))
        np.testing.assert_array_equal(table.obsm["spatial"], coords_of(store, name) + 64)
        assert shapes.geometry.area.tolist() == [128.0**2] * count
        assert slide.attrs["kd_mil"]["slide_mpp"] == 0.25
        assert slide.attrs["tile_spec"]["tiles"]["width"] == 64
        if name == "s1":
            assert table.obs["instance_label"].tolist() == [0, 1, 1]
