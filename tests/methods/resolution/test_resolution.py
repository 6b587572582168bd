"""Resolution distillation: what moves in each phase, accumulation, resume, and where a teacher may come from."""

import math
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from kd_mil.core.checkpoints import AtomicCheckpointIO
from kd_mil.core.errors import UserError
from kd_mil.methods.resolution.given_teacher import differences
from kd_mil.methods.resolution.pair_augment import PairAugment
from kd_mil.methods.resolution.pair_loss import PairLoss
from kd_mil.methods.resolution.resolution import ResolutionDistillation
from kd_mil.models.resnet_gn import ResNetGN
from tests.support.tiny_pairs import TinyPairs

SQUARE = ((16, 16),)
AUXILIARY = {"distil_on": "both", "auxiliary_fraction": 0.3}
NETWORK = partial(ResNetGN, stem="small", width=8, groups=4)
SLIDES = {"kind": "sections", "mpp": 1.0, "tissue": {"mpp": 8.0}, "margin_um": 32.0, "reading": "level0"}
STILL = PairAugment((), "none", 0, 0, 0, 0)


def make(data, weights=0, **settings):
    data.setup()
    torch.manual_seed(weights)
    epochs = {"teacher_epochs": 2, "student_epochs": 2, "finetune_epochs": 2}
    parts = {
        "network": NETWORK,
        "loss": PairLoss(),
        "augment": PairAugment(),
        "optimizer": partial(torch.optim.Adam, lr=0.003),
    }
    method = ResolutionDistillation(**data.model_inputs, **epochs | parts | settings)
    method.model_card = {"model_inputs": data.model_inputs}
    return method


def train(method, data, ckpt_path=None, **trainer):
    runner = L.Trainer(
        **{
            "max_epochs": -1,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "plugins": [AtomicCheckpointIO()],
        }
        | trainer
    )
    runner.fit(method, datamodule=data, ckpt_path=ckpt_path)
    return runner


class StopAfter(L.Callback):
    """End a run after so many epochs, as one that is stopped from outside."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, method):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def trained_teacher(path, data=None, **settings):
    data = TinyPairs() if data is None else data
    method = make(data, mode="teacher", **settings)
    train(method, data).save_checkpoint(path)
    return method


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def flat_gradient(module):
    return torch.cat([one.grad.flatten().clone() for one in module.parameters()])


class WhatMoved(L.Callback):
    """Phase and changed parts of each epoch."""

    def __init__(self):
        self.seen = []

    def parts(self, method):
        network = method.student.network
        trunk = {name: value for name, value in state(network).items() if not name.startswith("head")}
        return {"teacher": state(method.teacher), "trunk": trunk, "head": state(network.head)}

    def on_train_batch_start(self, trainer, method, batch, batch_idx):
        if batch_idx == 0:  # after what a phase starts with
            self.before = self.parts(method)

    def on_train_epoch_end(self, trainer, method):
        after = self.parts(method)
        self.seen.append((method.phase, {name for name in after if not same(after[name], self.before[name])}))


def test_phases_follow_each_other_and_move_their_part_alone():
    """A frozen network is equal to the last bit before and after each epoch."""
    data, record = TinyPairs(**AUXILIARY), WhatMoved()
    train(make(data), data, callbacks=[record])
    phases = [("teacher", {"teacher"}), ("distil", {"trunk", "head"}), ("finetune", {"head"})]
    assert record.seen == [phase for phase in phases for _ in range(2)]


@pytest.mark.parametrize(
    ("finetune", "data", "phases"),
    [
        ("auto", {}, ["teacher", "distil"]),
        ("auto", AUXILIARY, ["teacher", "distil", "finetune"]),
        ("on", {}, ["teacher", "distil", "finetune"]),
        ("off", AUXILIARY, ["teacher", "distil"]),
    ],
)
def test_finetuning_is_automatic(finetune, data, phases):
    method = make(TinyPairs(**data), finetune=finetune)
    assert method.phases.names == phases
    assert make(TinyPairs(), student_epochs=3, mode="baseline").phases.names == ["baseline"]


@pytest.mark.parametrize("phase", ["teacher", "distil"])
def test_32_single_images_make_the_gradient_of_one_batch(phase):
    """Accumulation (Sec. 3.5): the same update, whether the images go through together or one by one."""
    results = []
    for max_pixels in (10**7, 1):
        data = TinyPairs(60, SQUARE, images_per_step=32, drop_last=True)
        method = make(data, teacher_epochs=1, max_pixels=max_pixels, optimizer=partial(torch.optim.SGD, lr=0.1))
        train(method, data, callbacks=[StopAfter(1 if phase == "teacher" else 2)])
        results.append(torch.cat([one.flatten() for one in method.parameters()]))
    assert (results[0] - results[1]).abs().max() < 1e-6


def test_sizes_mix_in_one_update():
    """One step over three sizes is the step on the mean of the images' own losses."""
    data = TinyPairs(60, images_per_step=60)
    method = make(data, mode="teacher", teacher_epochs=1, augment=STILL, optimizer=partial(torch.optim.SGD, lr=1.0))
    before = state(method.teacher.network)
    mean, std = (value[:, None, None] for value in data.channel_statistics("teacher"))
    oracle = NETWORK(num_classes=2)
    oracle.load_state_dict(before)
    positions = data.positions["train"].tolist()
    for at in positions:
        logits = oracle(((data.images["teacher"][at] / 255 - mean) / std)[None]).logits
        (torch.nn.functional.cross_entropy(logits, data.source.labels[at : at + 1]) / len(positions)).backward()
    train(method, data)
    assert len({tuple(data.images["teacher"][at].shape) for at in positions}) == 3
    after = state(method.teacher.network)
    for name, parameter in oracle.named_parameters():
        assert torch.allclose(before[name] - after[name], parameter.grad, atol=1e-6), name


def test_the_last_group_counts_with_its_own_number():
    """Ten images in steps of six make two updates, the second the mean over four."""
    gradients = {}
    for images_per_step in (6, 10):
        data = TinyPairs(20, SQUARE, images_per_step=images_per_step, val_fraction=0.375)
        still = {"augment": STILL, "optimizer": partial(torch.optim.SGD, lr=0.0)}
        method = make(data, mode="teacher", teacher_epochs=1, **still)
        found = gradients[images_per_step] = []
        method.step = lambda *_, method=method, found=found: found.append(flat_gradient(method.teacher))
        train(method, data)
        assert len(data.positions["train"]) == 10
    [first, last], [whole] = gradients[6], gradients[10]
    assert torch.allclose((6 * first + 4 * last) / 10, whole, atol=1e-6)


def test_no_label_reaches_the_student_in_distillation(tmp_path):
    """Other labels on the training images leave the student as it is, to the last bit."""
    trained_teacher(tmp_path / "teacher.ckpt")
    students = []
    for scrambled in (False, True):
        data = TinyPairs()
        method = make(data, teacher_ckpt=str(tmp_path / "teacher.ckpt"))
        if scrambled:
            chosen = data.positions["train"]
            data.source.labels[chosen] = 1 - data.source.labels[chosen]
        train(method, data)
        students.append(state(method.student))
    assert same(*students)


def test_the_teacher_only_looks_while_the_student_learns():
    """In evaluation mode: no statistics of its own that move, no dropout."""

    class Look(Callback):
        def __init__(self):
            self.seen = set()

        def on_train_batch_start(self, trainer, method, *_):
            self.seen.add((method.phase, method.teacher.training))

    look, data = Look(), TinyPairs()
    train(make(data), data, callbacks=[look])
    assert ("teacher", True) in look.seen
    assert ("distil", False) in look.seen
    assert ("distil", True) not in look.seen


@pytest.mark.parametrize("stop", range(1, 6))
def test_resume_is_exact_in_every_phase(stop, tmp_path):
    """Two epochs a phase, stopped at each of the five inner epoch ends, from a checkpoint written as runs write it."""
    straight_data, half_data, rest_data = (TinyPairs(**AUXILIARY) for _ in range(3))
    straight, half, rest = make(straight_data), make(half_data), make(rest_data, weights=7)
    train(straight, straight_data)
    last = ModelCheckpoint(
        dirpath=tmp_path, filename="half", save_on_train_epoch_end=True, enable_version_counter=False
    )
    train(half, half_data, enable_checkpointing=True, callbacks=[last, StopAfter(stop)])
    train(rest, rest_data, ckpt_path=tmp_path / "half.ckpt")
    assert same(state(straight), state(rest))
    for role, scores in straight.scores["val"].items():
        assert rest.scores["val"][role] == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(("reload", "taught_by"), [("best", 0), ("last", 2)])
def test_teacher_that_distils_is_the_best_one_on_validation_or_the_last(reload, taught_by):
    """The teacher diverges after its first epoch; the student must still learn from that one, unless told otherwise."""
    data = TinyPairs()
    method = make(data, teacher_epochs=3, student_epochs=1, reload=reload)
    kept = {}

    class Spoil(L.Callback):
        def on_train_epoch_start(self, trainer, module):
            if module.current_epoch in (1, 2):
                with torch.no_grad():
                    module.teacher.network.head.weight.mul_(-30)

        def on_train_epoch_end(self, trainer, module):
            if module.current_epoch == taught_by:
                kept.update(state(module.teacher))

    train(method, data, callbacks=[Spoil()])
    assert same(state(method.teacher), kept)


def test_a_check_of_the_validation_loop_keeps_no_network():
    """Lightning's sanity check scores the untrained teacher on a few images; it may never be the best one."""
    data = TinyPairs()
    method = make(data)
    seen = []

    class Note(L.Callback):
        def on_sanity_check_end(self, trainer, module):
            seen.append((module.scores["val"]["teacher"]["image_loss"], float(module.best_loss)))

    train(method, data, num_sanity_val_steps=1, callbacks=[Note(), StopAfter(1)])
    [(scored, kept)] = seen
    assert math.isfinite(scored)
    assert kept == math.inf


def test_a_student_that_has_not_learned_scores_nothing():
    """Otherwise an epoch of the teacher phase could be selected for its untrained student."""
    data = TinyPairs()
    method = make(data)
    trainer = train(method, data, callbacks=[StopAfter(1)])
    assert math.isnan(trainer.callback_metrics["val/student/image_loss"])
    assert math.isfinite(trainer.callback_metrics["val/teacher/image_loss"])
    train(method, data)
    assert math.isfinite(method.scores["val"]["student"]["image_loss"])


def test_teacher_of_an_earlier_run_comes_whole(tmp_path):
    teacher = trained_teacher(tmp_path / "teacher.ckpt")
    data = TinyPairs(student_downsample=4)
    method = make(data, teacher_ckpt=str(tmp_path / "teacher.ckpt"), weights=5)
    assert method.phases.names == ["distil"]
    train(method, data)
    assert same(state(method.teacher), state(teacher.teacher))
    assert torch.equal(method.teacher.preprocess.mean, data.channel_statistics("teacher")[0])
    assert not torch.equal(method.student.preprocess.std, method.teacher.preprocess.std)


def test_student_can_start_from_the_teacher(tmp_path):
    teacher = trained_teacher(tmp_path / "teacher.ckpt")
    data = TinyPairs()
    still = {"optimizer": partial(torch.optim.SGD, lr=0.0), "teacher_ckpt": str(tmp_path / "teacher.ckpt")}
    method = make(data, student_init="teacher", **still)
    train(method, data)
    assert same(state(method.student.network), state(teacher.teacher.network))


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ({"classes": 3}, {}, "class_names"),
        ({"teacher_downsample": 1.5}, {}, "teacher_downsample: 1.0 there, 1.5 here"),
        ({"seed": 4}, {}, "validation and test images differ by their names, image_id"),
        ({"source": SLIDES | {"mpp": 0.5}}, {}, "mpp: 1.0 there, 0.5 here"),
        ({"source": SLIDES | {"tissue": {"mpp": 4.0}}}, {}, "tissue.mpp: 8.0 there, 4.0 here"),
        ({"source": SLIDES | {"margin_um": 0.0}}, {}, "margin_um: 32.0 there, 0.0 here"),
        ({}, {"network": partial(ResNetGN, stem="small", width=16, groups=4)}, "another network"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(data, settings, message, tmp_path):
    trained_teacher(tmp_path / "teacher.ckpt", TinyPairs(source=SLIDES), teacher_epochs=1)
    with pytest.raises(UserError, match=message):
        make(TinyPairs(**{"source": SLIDES} | data), teacher_ckpt=str(tmp_path / "teacher.ckpt"), **settings)


def test_what_is_known_of_a_teacher_by_hand():
    """Read from another level it may be; of an earlier version, only where nothing is to be compared."""
    known = {"class_names": ["a", "b"], "teacher_downsample": 1.0, "held_out": "h", "source": SLIDES}
    assert list(differences(known | {"source": SLIDES | {"reading": "pyramid"}}, known)) == []
    old = {name: value for name, value in known.items() if name != "source"}
    [line] = differences(old, known)
    assert line.startswith("was written by an earlier version, which did not note mpp, tissue, margin_um: train")
    assert list(differences(old, known | {"source": {"kind": "image_files"}})) == []


def test_a_checkpoint_without_teacher_is_refused(tmp_path):
    data = TinyPairs()
    method = make(data, mode="baseline", student_epochs=1)
    train(method, data).save_checkpoint(tmp_path / "baseline.ckpt")
    with pytest.raises(UserError, match="holds no teacher"):
        make(TinyPairs(), teacher_ckpt=str(tmp_path / "baseline.ckpt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_epochs": 0}, "there is no teacher"),
        ({"student_epochs": 0}, "without epochs"),
        ({"mode": "baseline", "teacher_ckpt": "best.ckpt"}, "is of use with method.mode=distil"),
        ({"finetune_epochs": -1}, "finetune_epochs=-1: must be at least 0"),
        ({"student_downsample": 1}, "the student sees less"),
    ],
)
def test_mistakes(settings, message):
    data = {name: settings.pop(name) for name in ("student_downsample",) if name in settings}
    with pytest.raises(UserError, match=message):
        make(TinyPairs(**data), **settings)


@pytest.mark.parametrize("monitor", ["test/student/image_loss", "val/model/image_loss", "val/student/bag_loss", "x"])
def test_only_validation_images_may_select(monitor):
    with pytest.raises(UserError, match="validation images only"):
        make(TinyPairs()).check_monitor(monitor)
    make(TinyPairs()).check_monitor("val/teacher/image_f1")
    make(TinyPairs()).check_monitor("val/student/image_agreement")
    for misspelt in ("val/student/image_auc", "val/teacher/image_agreement"):
        with pytest.raises(UserError, match="METRIC one of image_loss, image_auroc"):
            make(TinyPairs()).check_monitor(misspelt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"w_pixel": -1.0}, "method.loss.w_pixel=-1.0: must be at least 0"),
    ],
)
def test_mistakes_in_the_loss(settings, message):
    with pytest.raises(UserError, match=message):
        PairLoss(**settings)


@pytest.mark.parametrize("resize", [[], ["maxpool"], ["bicubic"], ["maxpool", "bicubic"]])
def test_ablations_log_their_losses(resize):
    network = NETWORK(num_classes=2)
    teacher = network(torch.rand(2, 3, 16, 16))
    losses = PairLoss(resize=resize)(network(torch.rand(2, 3, 8, 8)), teacher)
    names = {f"pixel_{one}" for one in resize} | ({"pixel", "pixel_excess"} if resize else set())
    assert losses.keys() == {"soft", "total"} | names
    assert losses["total"].item() == pytest.approx(
        losses["soft"].item() + losses.get("pixel", torch.tensor(0.0)).item()
    )
    if len(resize) == 1:
        assert losses["pixel_excess"].item() == pytest.approx(losses["pixel"].item())


def test_student_learns_from_the_teacher_without_labels():
    """End to end: a student of a quarter of the pixels reaches the accuracy of its teacher."""
    data = TinyPairs(120, SQUARE, images_per_step=8)
    method = make(data, teacher_epochs=6, student_epochs=8)
    trainer = train(method, data)
    [scores] = trainer.test(method, datamodule=data, verbose=False)
    assert scores["test/teacher/image_accuracy"] > 0.9
    assert scores["test/student/image_accuracy"] > 0.9
    assert scores["test/student/image_agreement"] > 0.9
