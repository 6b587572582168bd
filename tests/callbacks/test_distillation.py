"""What TensorBoard and figures/mined.png say about pseudo-labels and hard positive mining."""

from types import SimpleNamespace

import pytest
import torch

from kd_mil.callbacks.distillation import DistillationMonitor, montage, montage_figure
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


def method(dropped=(), pseudo_labels=(), student_scores=None):
    student = [torch.zeros(len(ids)) for ids, _ in pseudo_labels] if student_scores is None else student_scores
    notes = SimpleNamespace(dropped=dropped, pseudo_labels=pseudo_labels, student_scores=student)
    return Method(memory=AttentionMemory(), notes=notes, hpm=None)


def test_pseudo_labels_of_positive_bags_are_split_by_true_class(bags, tmp_path):
    given = [(torch.tensor([4, 0]), torch.tensor([0.5, 0.0])), (torch.tensor([2, 3]), torch.tensor([0.9, 0.2]))]
    trainer = trainer_of(bags, log_dir=tmp_path)
    DistillationMonitor(str(tmp_path / "figures")).on_train_epoch_end(trainer, method(pseudo_labels=given))
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
    watched = method(dropped=dropped)
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), watched)
    assert watched.logged["hpm/dropped"] == 2
    assert (tmp_path / "mined.png").stat().st_size > 1000


def test_pseudo_labels_and_student_are_scored_on_the_instances_of_positive_bags(bags, tmp_path):
    """Bag 1: positive 2, negative 3, unknown 4; instances of bag 0 do not count."""
    given = [(torch.tensor([4, 0, 1]), torch.tensor([0.9, 0.0, 0.0])), (torch.tensor([2, 3]), torch.tensor([0.6, 0.8]))]
    student = [torch.tensor([9.0, 9.0, 9.0]), torch.tensor([2.0, -1.0])]
    monitor, watched = DistillationMonitor(str(tmp_path)), method([torch.tensor([2, 3, 4])], given, student)
    monitor.on_train_epoch_end(trainer_of(bags, epoch=3), watched)
    expected = {"auroc": 0, "ap": 0.5, "tpr": 1, "fpr": 1, "auroc_per_bag": 0, "student_auroc": 1, "student_ap": 1}
    for name, value in expected.items():
        assert watched.logged[f"pseudo_labels/{name}"] == value
    assert watched.logged["hpm/precision"] == 0.5
    other = DistillationMonitor(str(tmp_path))
    other.load_state_dict(monitor.state_dict())
    assert other.by_epoch[3]["pseudo_labels/student_auroc"] == 1


def test_without_instance_labels_nothing_is_scored(bags, tmp_path):
    object.__setattr__(bags, "instance_labels", torch.full((5,), -1))
    watched = method(dropped=[torch.tensor([2])], pseudo_labels=[(torch.tensor([2]), torch.tensor([0.5]))])
    monitor = DistillationMonitor(str(tmp_path))
    monitor.on_train_epoch_end(trainer_of(bags), watched)
    assert monitor.by_epoch == {0: {}}
    assert not any(name.startswith("pseudo") or name == "hpm/precision" for name in watched.logged)


def test_features_are_counted_but_not_shown(tmp_path):
    bags = Bags(torch.zeros(2, 3), torch.tensor([2]), torch.tensor([1]), ["only"])
    watched = method(dropped=[torch.tensor([0])])
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), watched)
    assert watched.logged["hpm/dropped"] == 1
    assert not list(tmp_path.iterdir())


def test_without_a_teacher_nothing_is_said_of_mining(bags, tmp_path):
    told = [(torch.tensor([2, 3]), torch.tensor([0.9, 0.2]))]
    alone = Method(notes=method(pseudo_labels=told).notes)
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), alone)
    assert alone.logged["pseudo_labels/auroc"] == 1
    assert not any(name.startswith(("hpm", "attention")) for name in alone.logged)


def test_methods_without_memory_or_mining_are_left_alone(bags, tmp_path):
    alone = Method()
    DistillationMonitor(str(tmp_path)).on_train_epoch_end(trainer_of(bags), alone)
    assert not hasattr(alone, "logged")


def test_montage_has_a_place_for_every_image():
    """Three images on two columns: row after row, white between and where there is none."""
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    edge = [255] * 3
    expected = [[10, 10, 255, 20, 20, 255], [10, 10, 255, 20, 20, 255], [*edge, *edge]]
    expected += [[30, 30, 255, *edge], [30, 30, 255, *edge], [*edge, *edge]]
    assert montage(images, columns=2)[0].tolist() == expected
    [axes] = montage_figure(images, "title", columns=2).axes
    assert axes.images[0].get_array().shape == (6, 6)
    colours = montage_figure(torch.rand(2, 3, 4, 4), "title").axes[0].images[0].get_array()
    assert colours.shape == (5, 60, 3)
    assert colours[4].min() == 1
