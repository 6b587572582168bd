"""What TensorBoard and figures/mined.png say about pseudo-labels and hard positive mining."""

import pytest
import torch

from kd_mil.callbacks.distillation import DistillationMonitor, montage_figure
from kd_mil.data.bags import Bags
from kd_mil.methods.base.attention_memory import AttentionMemory
from tests.support.stand_ins import Method, events, trainer_of


@pytest.fixture
def bags():
    """Bag 0 is negative; bag 1 holds a positive, a negative and an unknown instance; instances are 4x4 pictures."""
    return Bags(
        instances=torch.arange(5 * 48, dtype=torch.uint8).reshape(5, 3, 4, 4),
        sizes=torch.tensor([2, 3]),
        labels=torch.tensor([0, 1]),
        bag_ids=["left", "right"],
        instance_labels=torch.tensor([0, 0, 1, 0, -1]),
    )


def method(**state):
    return (
        Method(memory=AttentionMemory(), dropped=[], pseudo_labels=[])
        if not state
        else Method(memory=AttentionMemory(), **state)
    )


def test_pseudo_labels_of_positive_bags_are_split_by_true_class(bags, tmp_path):
    given = [(torch.tensor([4, 0]), torch.tensor([0.5, 0.0])), (torch.tensor([2, 3]), torch.tensor([0.9, 0.2]))]
    trainer = trainer_of(bags, log_dir=tmp_path)
    DistillationMonitor(str(tmp_path / "figures")).on_train_epoch_end(trainer, method(dropped=[], pseudo_labels=given))
    trainer.loggers[0].experiment.flush()
    written = events(tmp_path)
    expected = {"positive": 0.9, "negative": 0.2, "unknown": 0.5}
    assert set(written.Tags()["histograms"]) == {f"train/pseudo_labels/{name}" for name in expected}
    for name, value in expected.items():
        [event] = written.Histograms(f"train/pseudo_labels/{name}")
        assert event.histogram_value.num == 1
        assert event.histogram_value.sum == pytest.approx(value)


def test_dropped_instances_are_counted_and_shown(bags, tmp_path):
    dropped = [torch.tensor([2]), torch.tensor([], dtype=torch.long), torch.tensor([4])]
    watched = method(dropped=dropped, pseudo_labels=[])
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), watched)
    assert watched.logged["hpm/dropped"] == 2
    assert (tmp_path / "mined.png").stat().st_size > 1000


def test_features_are_counted_but_not_shown(tmp_path):
    bags = Bags(torch.zeros(2, 3), torch.tensor([2]), torch.tensor([1]), ["only"])
    watched = method(dropped=[torch.tensor([0])], pseudo_labels=[])
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), watched)
    assert watched.logged["hpm/dropped"] == 1
    assert not list(tmp_path.iterdir())


def test_methods_without_memory_or_mining_are_left_alone(bags, tmp_path):
    alone = Method()
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), alone)
    assert not hasattr(alone, "logged")


def test_montage_has_a_place_for_every_image():
    figure = montage_figure(torch.zeros(14, 1, 8, 8, dtype=torch.uint8), "title", columns=12)
    assert len(figure.axes) == 24
    assert sum(bool(axes.images) for axes in figure.axes) == 14
