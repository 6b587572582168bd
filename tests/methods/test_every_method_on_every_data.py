"""Every method goes through its phases on every kind of data it takes, with all the callbacks of a run."""

import functools
import inspect
import json
import math

import h5py
import numpy as np
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.data import datamodules
from kd_mil.data.batches import UNKNOWN
from kd_mil.data.datamodules import SplitDataModule
from kd_mil.data.masks.mask_data import SegmentationData
from kd_mil.data.pairs.division import AUXILIARY
from kd_mil.data.pairs.pair_data import PairedImages
from tests.campaign.training_jobs import JOBS
from tests.support.configs import method_of
from tests.support.tiny_images import write_image, write_pictures
from tests.support.training import train

ON_BAGS = {
    "weno_abmil": ["trainer.max_epochs=2"],
    "weno_transport": ["trainer.max_epochs=2"],
    "dmkd_style": ["trainer.max_epochs=2", "method.feedback.low=0.5", "method.feedback.high=0.51"],
    "sela_mil": ["trainer.max_epochs=2"],
    "ins": ["trainer.max_epochs=2", "method.queue=64", "method.warm_up=1"],
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
    "oeem_style": ["phase_epochs=1", "segmenter.widths=[4,6,8]"],
    "oaa_style": ["phase_epochs=1", "segmenter.widths=[4,6,8]"],
    "unet_supervised": ["trainer.max_epochs=2"],
}
ON_PAIRS = {
    name: [
        *("phase_epochs=1", "method.network.stem=small", "method.network.width=8", "method.network.groups=4"),
        "cost_of=0",  # seconds are never the same twice
    ]
    for name in ("resolution_teacher", "resolution_baseline", "resolution_kd", "resolution_kd_ad")
}
ON_AUXILIARY = {name: ON_PAIRS[name] for name in ("resolution_kd", "resolution_kd_ad")}
CLASSES = {"features_of_three_classes": 3, "patches_of_three_classes": 3}
KINDS = {
    "patches": ON_BAGS,
    "patches_of_three_classes": SEVERAL_CLASSES,
    "slides": ON_BAGS,
    "features": {name: ON_BAGS[name] for name in ON_BAGS if name != "supervised"},
    "features_of_three_classes": SEVERAL_CLASSES,
    "labelled_features": ON_BAGS,
    "drawn_images": ON_IMAGES,
    "images": ON_IMAGES,
    "pairs": ON_PAIRS,
    "auxiliary_pairs": ON_AUXILIARY,
}
SCRAMBLED_ALONE = ("labelled_features", "auxiliary_pairs")
"""Trained by the test of instance labels, and by no other."""
LATE = {("slides", "rnn_mil"), ("slides", "d2l_mnist"), ("features", "d2l_mnist")}
"""A role that trains later than the first validation; these run in the fast tests, too."""
SLOW = pytest.mark.slow
MATRIX = [
    pytest.param(kind, name, marks=[] if (kind, name) in LATE else SLOW)
    for kind, methods in KINDS.items()
    if kind not in SCRAMBLED_ALONE
    for name in methods
]


def write_labelled_features(folder):
    """Feature files with labels of instances."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["slide_id,label,feature_path"]
    for index in range(20):
        truth = (rng.random(3 + index % 4) < 0.5).astype(np.int64) * (index % 2)
        with h5py.File(folder / f"s{index}.h5", "w") as file:
            file["features"] = rng.normal(size=(len(truth), 5)).astype(np.float32) + truth[:, None]
            file["inst_labels"] = truth
        rows.append(f"s{index},{index % 2},s{index}.h5")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


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
                tiling = ["tiling.tile_size=16", "tiling.mpp=8", "preprocess=tissue"]
                slides = ["data.synthetic.slides=20", "data.synthetic.slides_per_case=1", "data.synthetic.mpp=1.5"]
                slides += ["data.synthetic.size=512", "callbacks.slide_maps.slides=1"]
                chosen = [*cnn, "data=synthetic_slides", *tiling, *slides]
            case "features" | "features_of_three_classes" | "labelled_features":
                labelled, folder = kind == "labelled_features", root / kind
                manifest = write_labelled_features(folder) if labelled else write_features(folder, CLASSES.get(kind, 2))
                data = ["data=feature_bags", f"data.manifest={manifest}", "data.val_fraction=0.2"]
                chosen = [*tiny, *data, "encoder=features", "preprocess=features"]
            case "drawn_images":
                counts = [f"data.{part}_images=8" for part in ("train", "val", "test")]
                chosen = [*tiny, "data=synthetic_glands", "data.image_size=32", *counts]
            case "images":
                folder = write_masked_images(root / kind)
                chosen = [*tiny, "data=patch_masks", f"data.root={folder}", "data.image_size=32"]
            case "pairs" | "auxiliary_pairs":
                write_pictures(root / kind)
                chosen = ["data=paired_images", f"data.root={root / kind}", "data.images_per_step=8"]
                if kind == "auxiliary_pairs":
                    chosen += ["data.distil_on=auxiliary", "data.auxiliary_fraction=0.4"]
        return chosen

    def chosen(kind):
        if kind not in known:
            known[kind] = written(kind)
        return known[kind]

    return chosen


@pytest.fixture(scope="module")
def trained(settings_of, tmp_path_factory):
    """Folder and score of a method on a kind of data, trained once with all that a run has."""

    @functools.cache
    def run(kind, experiment):
        folder = tmp_path_factory.mktemp("run")
        return folder, train(folder, f"experiment={experiment}", *settings_of(kind), *KINDS[kind][experiment])

    return run


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(("kind", "experiment"), MATRIX)
def test_it_trains_selects_and_tests(kind, experiment, trained):
    folder, score = trained(kind, experiment)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert math.isfinite(score)
    assert metrics_in(folder)[record["monitor"]] == score


WITHOUT_PICTURES = ["callbacks.figures=null", "callbacks.slide_maps=null", "logger.tensorboard=null"]
QUICK = {("patches", "weno_abmil"), ("patches", "supervised")}
LABELLED = [
    pytest.param(kind, name, marks=[] if (kind, name) in QUICK else SLOW)
    for kind in (
        "patches",
        "patches_of_three_classes",
        "slides",
        "labelled_features",
        "drawn_images",
        "auxiliary_pairs",
    )
    for name in KINDS[kind]
]


def lies(labels, unknown):
    """Of every second label nothing is known any more, and the others say the opposite."""
    found = torch.where(labels == unknown, labels, (labels == 0).to(labels))
    found[1::2] = unknown
    return found


def scramble_instance_labels(monkeypatch):
    """Every data module from here on lies about instances, pixels and auxiliary images, not about bags and images."""
    check, masks, setup = datamodules.check_splits, SegmentationData.masks, PairedImages.setup

    def check_and_scramble(splits):
        check(splits)
        splits.bags.instance_labels.copy_(lies(splits.bags.instance_labels, unknown=-1))

    def setup_and_scramble(data, stage=None):
        known = hasattr(data, "source")
        setup(data, stage)
        auxiliary = data.positions[AUXILIARY]
        if not known:
            data.source.labels[auxiliary] = lies(data.source.labels[auxiliary], unknown=-1)

    monkeypatch.setattr(datamodules, "check_splits", check_and_scramble)
    monkeypatch.setattr(SegmentationData, "masks", lambda data, part: lies(masks(data, part), unknown=UNKNOWN))
    monkeypatch.setattr(PairedImages, "setup", setup_and_scramble)


@pytest.mark.parametrize(("kind", "experiment"), LABELLED)
def test_no_label_of_an_instance_reaches_a_weight(kind, experiment, settings_of, trained, tmp_path, monkeypatch):
    """Weak supervision, proved: with instance labels erased and changed, every tensor of the selected checkpoint is the
    same.

    But for the two methods that say they train on them.
    """
    folder, _ = trained(kind, experiment)
    scramble_instance_labels(monkeypatch)
    command = [f"experiment={experiment}", *settings_of(kind), *KINDS[kind][experiment], *WITHOUT_PICTURES]
    train(tmp_path, *command)
    before, after = metrics_in(folder), metrics_in(tmp_path)
    assert before.keys() == after.keys()
    assert (before != after) is (kind != "auxiliary_pairs"), "nothing was scrambled, or too much"
    clean, scrambled = (read_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"] for run in (folder, tmp_path))
    same = [torch.equal(clean[key], scrambled[key]) for key in clean]
    assert all(same) is (experiment not in ("supervised", "unet_supervised"))


METHODS = {path.stem for path in (CONFIG_DIR / "method").glob("*.yaml")}
RELEASED = {"ifkd_released"}
"""The same class with other settings."""
TAUGHT_BY_A_RUN = {"low_magnification"}
"""Needs a run on slides first: trained in `test_resolution_weno.py`, scrambled in `test_low_magnification.py`."""


def test_no_method_is_left_out():
    """Of the matrix, of what is scrambled, and of the campaign that kills training."""
    scrambled = {method_of(mark.values[1]) for mark in LABELLED}
    trained = {method_of(name) for methods in KINDS.values() for name in methods}
    settings = [text for job in JOBS.values() for text in job.settings]
    killed = {method_of(text.partition("=")[2]) for text in settings if text.startswith("experiment=")}
    for tested, but in ((trained, TAUGHT_BY_A_RUN), (scrambled, {"resolution"} | TAUGHT_BY_A_RUN), (killed, set())):
        assert METHODS - RELEASED - tested <= but
    assert ("auxiliary_pairs", "resolution_kd") in {mark.values for mark in LABELLED}


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_scrambled_is_all_that_a_data_module_shows(path):
    """Labels of instances pass by `check_splits`, masks by `masks`, pairs by `setup`: no data set goes around them."""
    module = get_class(OmegaConf.load(path)._target_)
    assert issubclass(module, SplitDataModule | PairedImages)
    assert not issubclass(module, SegmentationData) or module.masks is SegmentationData.masks
    if issubclass(module, PairedImages):
        for own in module.__mro__[: module.__mro__.index(PairedImages)]:
            assert "setup" not in vars(own) or "super().setup(stage)" in inspect.getsource(own.setup)
    if issubclass(module, SplitDataModule):
        assert module.check
        for own in module.__mro__[: module.__mro__.index(SplitDataModule)]:
            assert "setup" not in vars(own) or "super().setup(stage)" in inspect.getsource(own.setup)
