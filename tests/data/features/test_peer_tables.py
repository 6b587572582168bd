"""Tables of labels, splits and folds as other tools write them; each header is that of the tool's own writer."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags

SIZES = {"a": 3, "b": 1, "c": 4, "d": 2, "e": 3, "f": 2}
LABELS = {name: int(name in "bdf") for name in SIZES}
PARTS = {"train": ["a", "b"], "val": ["c", "d"], "test": ["e", "f"]}
FEATURES = {name: np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
            for seed, (name, n) in enumerate(SIZES.items())}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name, features in FEATURES.items():
        torch.save(torch.from_numpy(features), tmp_path / f"{name}.pt")
    return tmp_path


def load(manifest, **settings):
    folds = {"num_folds": 2, "val_fraction": 0.25}  # a split file replaces them
    cache = str(manifest.parent / "cache")
    data = FeatureBags(str(manifest), Loading(), cache_dir=cache, dtype="float32", **folds, **settings)
    data.setup()
    return data


def parts_of(data):
    ids = data.bags.bag_ids
    return {part: [ids[bag] for bag in getattr(data.splits, part)] for part in PARTS}


def check(data, parts=None):
    """Labels, features and parts are those written."""
    assert parts_of(data) == (parts or PARTS)
    assert data.bags.labels.tolist() == [LABELS[name] for name in data.bags.bag_ids]
    expected = np.concatenate([FEATURES[name] for name in data.bags.bag_ids])
    np.testing.assert_array_equal(data.bags.instances.numpy(), expected)


def by_part(suffix="", path=str, labels=False, **index):
    """As pandas writes columns of unequal length beside each other."""
    columns = {}
    for part, names in PARTS.items():
        columns[f"{part}{suffix}"] = pd.Series([path(name) for name in names])
        if labels:
            columns[f"{part}_label"] = pd.Series([LABELS[name] for name in names])
    return pd.DataFrame(columns)


def labels_csv(folder):
    rows = [f"p{name},{name},{label}" for name, label in LABELS.items()]
    (folder / "labels.csv").write_text("\n".join(["case_id,slide_id,label", *rows]))
    return str(folder / "labels.csv")


@pytest.mark.parametrize("index", [True, False])
def test_splits_of_clam(folder, index):
    by_part().to_csv(folder / "splits_0.csv", index=index)
    check(load(folder, labels=labels_csv(folder), split_file=str(folder / "splits_0.csv")))


def test_truth_values_of_clam(folder):
    """As its `save_splits(..., boolean_style=True)` writes them."""
    names = [name for part in PARTS.values() for name in part]
    truth = np.repeat(np.eye(3, dtype=bool), [len(part) for part in PARTS.values()], axis=0)
    path = folder / "splits_0_bool.csv"
    pd.DataFrame(truth, index=names, columns=list(PARTS)).to_csv(path)
    check(load(folder, labels=labels_csv(folder), split_file=str(path)))
    path.write_text(path.read_text().replace("a,True,False", "a,True,True"))
    with pytest.raises(UserError, match=r"bool\.csv, line 2: 'a' is in train and val: one of train, val, test is true"):
        load(folder, labels=labels_csv(folder), split_file=str(path))
    path.write_text("train,val,test\nTrue,False,False\n")
    with pytest.raises(UserError, match=r"bool\.csv: columns of true and false without ids"):
        load(folder, labels=labels_csv(folder), split_file=str(path))


def test_folds_of_transmil(folder):
    """Its labels become 1.0 where a part is shorter than another."""
    table = by_part(labels=True)
    table.loc[2, ["train", "train_label"]] = ["g", 0]
    torch.save(torch.ones(2, 5), folder / "g.pt")
    table.to_csv(folder / "fold0.csv")
    assert "1.0" in (folder / "fold0.csv").read_text()
    data = load(folder, labels=str(folder / "fold0.csv"))
    assert parts_of(data) == PARTS | {"train": ["a", "b", "g"]}
    assert data.bags.labels.tolist() == [0, 1, 0, 0, 1, 0, 1]


def test_splits_of_mil_baseline_are_manifests(folder):
    name = "Total_5-fold_SET_1fold.csv"
    by_part("_slide_path", lambda name: str(folder / f"{name}.pt"), labels=True).to_csv(folder / name, index=False)
    check(load(folder / name))
    rows = [f"{folder / name}.pt,{label}" for name, label in LABELS.items()]
    (folder / "set.csv").write_text("\n".join(["slide_path,label", *rows]))
    check(load(folder / "set.csv", split_file=str(folder / name)))


def test_the_manifest_of_eva(folder):
    """Each file holds a list of tensors, one for each tile or batch of tiles."""
    rows = ["origin,embeddings,target,split"]
    for part, names in PARTS.items():
        for name in names:
            first, *others = torch.from_numpy(FEATURES[name])
            torch.save([first, *([torch.stack(others)] if others else [])], folder / f"{name}.pt")
            rows.append(f"images/{name}.tif,{name}.pt,{LABELS[name]},{part}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    check(load(folder))


def patho_bench(folder, folds):
    """`case_id, slide_id, TASK, fold_0, ...` separated by tabs; a fold column says train or test (or val)."""
    rows = ["\t".join(["case_id", "slide_id", "er_status", *(f"fold_{number}" for number in range(len(folds)))])]
    for name, label in LABELS.items():
        rows.append("\t".join([f"p{name}", name, str(label), *(fold[name] for fold in folds)]))
    (folder / "k=all.tsv").write_text("\n".join(rows) + "\n")
    return {"labels": str(folder / "k=all.tsv"), "label_column": "er_status"}


def test_tasks_of_patho_bench(folder):
    """Folds need not divide the slides: each has a column of its own."""
    first = {name: part for part, names in PARTS.items() for name in names}
    second = first | {"a": "test", "b": "test"} | {"e": "train", "f": "train"}
    settings = patho_bench(folder, [first, second])
    check(load(folder, **settings))
    check(load(folder, fold=1, **settings), {"train": ["e", "f"], "val": ["c", "d"], "test": ["a", "b"]})
    with pytest.raises(UserError, match=r"data\.fold=2: the table has fold_0, fold_1"):
        load(folder, fold=2, **settings)


def test_slides_without_a_label_of_the_task_are_left_out(folder):
    settings = patho_bench(folder, [{name: part for part, names in PARTS.items() for name in names}])
    table = (folder / "k=all.tsv").read_text()
    torch.save(torch.ones(2, 5), folder / "g.pt")
    (folder / "k=all.tsv").write_text(table + "pg\tg\t\ttrain\n")
    with pytest.warns(UserWarning, match="1 slides without 'er_status' are left out"):
        check(load(folder, **settings))


@pytest.fixture
def stamp(tmp_path):
    """Features in micrometres, a slide table and a clinical table, as STAMP's configuration names them."""
    for name, features in FEATURES.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["feats"], file["coords"] = features, np.arange(2 * len(features)).reshape(-1, 2) * 256.0
            file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224, extractor="uni", feat_type="tile")
    words = {0: "nonMSIH", 1: "MSIH"}
    rows = [f"p{name},{name}.h5,0.5" for name in SIZES]
    (tmp_path / "slide.csv").write_text("\n".join(["PATIENT,FILENAME,mpp", *rows]))
    rows = [f"p{name},{words[label]},70" for name, label in LABELS.items()]
    (tmp_path / "clini.csv").write_text("\n".join(["PATIENT,isMSIH,AGE", *rows]))
    return tmp_path


STAMP = {"label_column": "isMSIH", "classes": ["nonMSIH", "MSIH"]}


def test_clinical_and_slide_table_of_stamp(stamp):
    """Its micrometres are scaled by the slides' resolution, where the slide table has a column `mpp`."""
    by_part().to_csv(stamp / "splits.csv")
    tables = {"labels": str(stamp / "slide.csv"), "clini": str(stamp / "clini.csv")}
    data = load(stamp, split_file=str(stamp / "splits.csv"), **tables, **STAMP)
    check(data)
    assert data.bags.case_ids == [f"p{name}" for name in SIZES]
    np.testing.assert_array_equal(data.bags.coords[:3].numpy(), [[0, 512], [1024, 1536], [2048, 2560]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("PATIENT,isMSIH\npa,MSIH\npa,MSIH", r"clini\.csv, line 3: patient 'pa' is listed twice"),
        ("PATIENT,isMSIH\nq,MSIH", r"none of its patients, such as 'pa', is in .*clini\.csv"),
        ("PATIENT,AGE\npa,70", r"clini\.csv: column 'isMSIH' is missing"),
    ],
)
def test_faults_of_a_clinical_table_are_one_line(stamp, rows, message):
    (stamp / "clini.csv").write_text(rows)
    with pytest.raises(UserError, match=message):
        load(stamp, labels=str(stamp / "slide.csv"), clini=str(stamp / "clini.csv"), **STAMP)
