"""Every method goes through its phases on every kind of data it takes, with all the callbacks of a run."""

import json
import math

import numpy as np
import pytest
import torch

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.data import datamodules
from kd_mil.data.masks.mask_data import SegmentationData
from tests.support.tiny_images import write_image, write_pictures
from tests.support.training import train

ON_BAGS = {
    "weno_abmil": ["trainer.max_epochs=2"],
    "mil_gated_abmil": ["trainer.max_epochs=2"],
    "mhim_abmil": ["trainer.max_epochs=2"],
    "rnn_mil": ["trainer.max_epochs=2", "method.rnn_start_epoch=1"],
    "d2l_mnist": ["phase_epochs=1", "method.rounds=2"],
    "supervised": ["trainer.max_epochs=2"],
}
SEVERAL_CLASSES = {name: ON_BAGS[name] for name in ("mil_gated_abmil", "mhim_abmil", "rnn_mil", "d2l_mnist")}
SEVERAL_CLASSES["weno_multiclass"] = ["trainer.max_epochs=2"]
ON_IMAGES = {
    "ifkd_vgg": ["phase_epochs=1", "segmenter.widths=[4,6,8]"],
    "cam_baseline": ["trainer.max_epochs=2"],
    "unet_supervised": ["trainer.max_epochs=2"],
}
ON_PAIRS = {
    name: ["phase_epochs=1", "method.network.stem=small", "method.network.width=8", "method.network.groups=4"]
    for name in ("resolution_teacher", "resolution_baseline", "resolution_kd", "resolution_kd_ad")
}
CLASSES = {"features_of_three_classes": 3, "patches_of_three_classes": 3}
KINDS = {
    "patches": ON_BAGS,
    "patches_of_three_classes": SEVERAL_CLASSES,
    "slides": ON_BAGS,
    "features": {name: ON_BAGS[name] for name in ON_BAGS if name != "supervised"},
    "features_of_three_classes": SEVERAL_CLASSES,
    "drawn_images": ON_IMAGES,
    "images": ON_IMAGES,
    "pairs": ON_PAIRS,
}
LATE = {("slides", "rnn_mil"), ("slides", "d2l_mnist"), ("features", "d2l_mnist")}
"""A role that trains later than the first validation; these run in the fast tests, too."""
SLOW = pytest.mark.slow
MATRIX = [
    pytest.param(kind, name, marks=[] if (kind, name) in LATE else SLOW)
    for kind, methods in KINDS.items()
    for name in methods
]


def write_features(folder, classes):
    """Feature files without positions or labels of instances, as most encoders write them."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["slide_id,label,feature_path"]
    for index in range(10 * classes):
        np.save(folder / f"s{index}.npy", rng.normal(size=(3 + index % 4, 5)).astype(np.float32) + index % classes)
        rows.append(f"s{index},{index % classes},s{index}.npy")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def write_masked_images(folder):
    """Images of two labels in three parts; nobody has drawn a mask."""
    for part in ("train", "val", "test"):
        for label in ("neg", "pos"):
            for index in range(4):
                write_image(folder / part / label / f"{label}{index}.png", seed=index, size=(32, 32))
    return folder


@pytest.fixture(scope="module")
def settings_of(tmp_path_factory):
    """The settings that choose a kind of data, written once."""
    root, known = tmp_path_factory.mktemp("data"), {}

    def written(kind):
        tiny = ["instances_per_step=16", f"paths.cache_dir={root / 'cache'}"]
        cnn = [*tiny, "encoder=tiny_cnn"]
        match kind:
            case "patches":
                chosen = [*cnn, "data=digits_mil", "data.max_train_bags=12", "data.max_test_bags=8"]
            case "patches_of_three_classes":
                chosen = [*cnn, "data=digits_classes", "data.positive_classes=[8,9]", "loading.limit_bags=12"]
            case "slides":
                tiling = ["tiling.tile_size=16", "tiling.mpp=4", "preprocess=tissue"]
                slides = ["data.synthetic.slides=20", "data.synthetic.slides_per_case=1"]
                chosen = [*cnn, "data=synthetic_slides", *tiling, *slides]
            case "features" | "features_of_three_classes":
                manifest = write_features(root / kind, CLASSES.get(kind, 2))
                data = ["data=feature_bags", f"data.manifest={manifest}", "data.val_fraction=0.2"]
                chosen = [*tiny, *data, "encoder=features", "preprocess=features"]
            case "drawn_images":
                counts = [f"data.{part}_images=8" for part in ("train", "val", "test")]
                chosen = [*tiny, "data=synthetic_glands", "data.image_size=32", *counts]
            case "images":
                folder = write_masked_images(root / kind)
                chosen = [*tiny, "data=patch_masks", f"data.root={folder}", "data.image_size=32"]
            case "pairs":
                write_pictures(root / kind)
                chosen = ["data=paired_images", f"data.root={root / kind}", "data.images_per_step=8"]
        return chosen

    def chosen(kind):
        if kind not in known:
            known[kind] = written(kind)
        return known[kind]

    return chosen


@pytest.mark.parametrize(("kind", "experiment"), MATRIX)
def test_it_trains_selects_and_tests(kind, experiment, settings_of, tmp_path):
    score = train(tmp_path, f"experiment={experiment}", *settings_of(kind), *KINDS[kind][experiment])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "finished"
    assert math.isfinite(score)
    assert metrics[record["monitor"]] == score


QUICK = {("patches", "weno_abmil"), ("patches", "supervised")}
LABELLED = [
    pytest.param(kind, name, marks=[] if (kind, name) in QUICK else SLOW)
    for kind in ("patches", "patches_of_three_classes", "slides", "drawn_images")
    for name in KINDS[kind]
]


def scramble_instance_labels(monkeypatch):
    """Every data module from here on tells lies about instances and pixels, and the truth about bags and images."""
    check, masks = datamodules.check_splits, SegmentationData.masks

    def check_and_scramble(splits):
        check(splits)
        labels = splits.bags.instance_labels
        labels.copy_(torch.where(labels >= 0, (labels == 0).long(), labels))

    monkeypatch.setattr(datamodules, "check_splits", check_and_scramble)
    monkeypatch.setattr(SegmentationData, "masks", lambda data, part: (masks(data, part) == 0).to(torch.uint8))


@pytest.mark.parametrize(("kind", "experiment"), LABELLED)
def test_no_label_of_an_instance_reaches_a_weight(kind, experiment, settings_of, tmp_path, monkeypatch):
    """Weak supervision, proved: with scrambled instance labels every tensor of the selected checkpoint is the same.

    But for the two methods that say they train on them.
    """
    command, states, scores = [f"experiment={experiment}", *settings_of(kind), *KINDS[kind][experiment]], [], []
    for name in ("clean", "scrambled"):
        train(tmp_path / name, *command)
        scores.append(json.loads((tmp_path / name / "metrics.json").read_text()))
        states.append(read_checkpoint(tmp_path / name / "checkpoints" / "best.ckpt")["state_dict"])
        scramble_instance_labels(monkeypatch)
    clean, scrambled = states
    assert scores[0] != scores[1], "nothing was scrambled"
    same = [torch.equal(clean[key], scrambled[key]) for key in clean]
    assert all(same) is (experiment not in ("supervised", "unet_supervised"))
