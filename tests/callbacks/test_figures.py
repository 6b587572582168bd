"""ROC curves and probability histograms, for validation in TensorBoard and for the test as files."""

import pytest
import torch

from kd_mil.callbacks.figures import Figures, probability_figure, roc_figure
from kd_mil.evaluation.tables import PredictionTables
from tests.support.stand_ins import Method, events, trainer_of


@pytest.fixture
def tables():
    """Bags are told apart perfectly; three of the four pairs of a positive and a negative instance are in order."""
    positive = torch.tensor([0.1, 0.3, 0.8, 0.9], dtype=torch.float64)
    scores = torch.tensor([0.1, 0.4, 0.3, 0.9, 0.5])
    bags = {"label": torch.tensor([0, 0, 1, 1]), "model/probs": torch.stack([1 - positive, positive], 1)}
    labels = torch.tensor([0, 0, 1, 1, -1])
    return PredictionTables(bags, {"label": labels, "model/probs": scores, "model/scores": scores})


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_roc_curves_carry_their_areas(tables):
    bags, instances = roc_figure(tables, ["model"]).axes
    assert legend(bags) == ["model 1.000"]
    assert legend(instances) == ["model 0.750"]


def test_one_class_alone_has_no_curve(tables):
    tables.instances["label"][:] = 0
    assert roc_figure(tables, ["model"]).axes[1].get_legend() is None


def test_histograms_are_split_by_true_class(tables):
    [axes] = probability_figure(tables, ["model"]).axes
    assert legend(axes) == ["negative (2)", "positive (2)", "unknown (1)"]


@pytest.mark.parametrize(("epoch", "histograms", "curves"), [(0, True, True), (1, False, False), (2, True, False)])
def test_validation_goes_to_tensorboard_at_its_intervals(tables, tmp_path, epoch, histograms, curves):
    trainer = trainer_of(None, log_dir=tmp_path, epoch=epoch)
    callback = Figures(str(tmp_path / "figures"), every_n_epochs=2, roc_every_n_epochs=5)
    callback.on_validation_end(trainer, Method(roles=("model",), tables={"val": tables}))
    trainer.loggers[0].experiment.flush()
    tags = events(tmp_path).Tags()
    assert bool(tags["histograms"]) == histograms
    assert tags["images"] == (["val/roc"] if curves else [])


def test_the_test_leaves_files(tables, tmp_path):
    Figures(str(tmp_path)).on_test_end(trainer_of(None), Method(roles=("model",), tables={"test": tables}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probabilities.png", "roc.png"]


def test_without_labels_of_instances_there_is_no_panel_of_them(tables):
    tables.instances["label"][:] = -1
    figure = roc_figure(tables, ["model"])
    assert [axes.get_title() for axes in figure.axes] == ["bags"]
    assert legend(probability_figure(tables, ["model"]).axes[0]) == ["unknown (5)"]
