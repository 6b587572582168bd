"""IFKD's stages and switches: what moves, what stays, what is judged, and what is never read."""

import copy
import math

import lightning as L
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.batches import ImageBatch
from kd_mil.evaluation.map_reading import MapReading
from tests.support.methods import checkpointing
from tests.support.tiny import fit
from tests.support.tiny_images import image_parts, tiny_glands, tiny_ifkd


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


class Watch(L.Callback):
    """Weights of both networks when an epoch's training starts and ends, and when it has been validated."""

    def __init__(self):
        self.start, self.end = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.start.append((state_of(pl_module.teacher), state_of(pl_module.student)))

    def on_train_epoch_end(self, trainer, pl_module):
        self.end.append((state_of(pl_module.teacher), state_of(pl_module.student)))


@pytest.fixture
def scripted(monkeypatch):
    """Give validation the scores we want: image_loss by role, epoch after epoch."""

    def script(method, teacher, student):
        original = type(method)._score

        def score(self, stage):
            original(self, stage)
            if stage == "val":
                epoch = self.current_epoch
                for role, values in (("teacher", teacher), ("student", student)):
                    if epoch < len(values):
                        self.scores[stage][role]["image_loss"] = values[epoch]

        monkeypatch.setattr(type(method), "_score", score)
        return method

    return script


def test_stage_one_moves_the_teacher_alone_and_stage_two_the_student_alone():
    method, watch = tiny_ifkd(switch={"rule": "never"}), Watch()
    fit(method, tiny_glands(), epochs=4, callbacks=[watch])
    for epoch, (start, end) in enumerate(zip(watch.start, watch.end, strict=True)):
        teacher_moved, student_moved = (not same(*pair) for pair in zip(start, end, strict=True))
        assert teacher_moved == (epoch < 2)
        assert student_moved == (epoch >= 2)


def test_a_frozen_teacher_is_bit_equal_with_its_batchnorm_statistics():
    method, watch = tiny_ifkd(switch={"rule": "never"}), Watch()
    fit(method, tiny_glands(), epochs=5, callbacks=[watch])
    frozen = watch.start[2][0]
    assert any("running_var" in name for name in frozen)
    for teacher, _ in (*watch.start[3:], *watch.end[2:]):
        assert same(frozen, teacher)
    assert not method.teacher.training


def test_the_best_epoch_of_stage_one_teaches(scripted):
    """Scores .9 .2 .5: the second epoch is the teacher, though a third came after it."""
    method, watch = scripted(tiny_ifkd(teacher_epochs=3), [0.9, 0.2, 0.5], []), Watch()
    fit(method, tiny_glands(), epochs=4, callbacks=[watch])
    assert same(watch.end[1][0], watch.start[3][0])
    assert not same(watch.end[2][0], watch.start[3][0])
    assert method.score_to_beat == -0.2


def test_a_better_student_becomes_the_teacher_and_goes_on_from_its_weights(scripted):
    student = [math.nan, math.nan, 0.4, 0.1, 0.3, 0.3, 0.3]
    method, watch = scripted(tiny_ifkd(switch={"first": 3, "period": 9}), [0.5, 0.5], student), Watch()
    fit(method, tiny_glands(), epochs=6, callbacks=[watch])
    before, after = watch.end[4], watch.start[5]
    assert same(after[0], watch.end[3][1]), "the best student, of epoch 3, is the teacher"
    assert same(after[1], before[0]), "the student starts from the old teacher"
    assert method.switches == 1
    assert method.score_to_beat == -0.1


def test_after_a_switch_a_step_moves_the_student_network(scripted):
    """Optimisers hold on to the networks: weights were exchanged, not modules."""
    student = [math.nan, math.nan, 0.1, 0.1]
    method, watch = scripted(tiny_ifkd(), [0.5, 0.5], student), Watch()
    fit(method, tiny_glands(), epochs=5, callbacks=[watch])
    assert method.switches == 1
    assert same(watch.start[4][0], watch.end[4][0])
    assert not same(watch.start[4][1], watch.end[4][1])
    for optimizer, network in zip(method.optimizer_list(), method.parts(), strict=True):
        held = {id(one) for group in optimizer.param_groups for one in group["params"]}
        assert held == {id(one) for one in network.parameters()}


@pytest.mark.parametrize(("rule", "switches"), [("if_better", 0), ("periodic", 2), ("never", 0)])
def test_what_each_rule_does_with_a_student_that_is_worse(scripted, rule, switches):
    method, watch = scripted(tiny_ifkd(switch={"rule": rule}), [0.2, 0.2], [math.nan] * 2 + [0.9] * 5), Watch()
    fit(method, tiny_glands(), epochs=7, callbacks=[watch])
    assert method.switches == switches
    if rule == "periodic":
        assert same(watch.start[4][0], watch.end[3][1]), "without a better one, the present student is promoted"
        assert method.score_to_beat == -0.2, "what was to beat stays to beat"


def test_a_student_has_to_beat_the_teacher_that_a_switch_made(scripted):
    student = [math.nan, math.nan, 0.3, 0.3, 0.4, 0.4, 0.2, 0.2, 0.2]
    method, watch = scripted(tiny_ifkd(), [0.5, 0.5], student), Watch()
    fit(method, tiny_glands(), epochs=9, callbacks=[watch])
    assert [not same(a[0], b[0]) for a, b in zip(watch.end[2:], watch.start[3:], strict=False)] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("reinit", ["old_teacher", "keep", "fresh"])
def test_where_the_student_goes_on_from(scripted, reinit):
    switch = {"student_reinit": reinit, "reset_optimizer": True}
    method, watch = scripted(tiny_ifkd(switch=switch), [0.5, 0.5], [math.nan] * 2 + [0.1] * 3), Watch()
    trainer = fit(method, tiny_glands(), epochs=4, callbacks=[watch])
    before = copy.deepcopy(watch.end[3])
    trainer.fit_loop.max_epochs = 5
    steps = method.optimizer_list()[1].optimizer.state
    assert max(float(state["step"]) for state in steps.values()) == 8
    trainer.fit(method, datamodule=tiny_glands())
    student = watch.start[4][1]
    assert same(student, before[0]) == (reinit == "old_teacher")
    assert same(student, before[1]) == (reinit == "keep")
    steps = method.optimizer_list()[1].optimizer.state
    assert max(float(state["step"]) for state in steps.values()) == 4, "moments were forgotten at the switch"


def test_promoting_the_last_student(scripted):
    student = [math.nan, math.nan, 0.1, 0.3]
    method, watch = scripted(tiny_ifkd(switch={"source": "last"}), [0.5, 0.5], student), Watch()
    fit(method, tiny_glands(), epochs=5, callbacks=[watch])
    assert same(watch.start[4][0], watch.end[3][1])
    assert method.score_to_beat == -0.3


def test_the_teacher_of_stage_one_stays_on_record(scripted):
    """A switch makes a student the teacher; what stage one had reached is still scored, as it was."""
    method, watch, scores = scripted(tiny_ifkd(), [0.5, 0.4], [math.nan] * 2 + [0.1] * 4), Watch(), []
    watch.on_validation_end = lambda trainer, module: scores.append(module.scores["val"])
    trainer = fit(method, tiny_glands(), epochs=6, callbacks=[watch])
    assert method.switches == 1
    stage_one, first, last = watch.end[1][0], scores[2], scores[5]
    assert same(stage_one, state_of(method.first_teacher))
    assert not same(stage_one, state_of(method.teacher))
    assert all(math.isnan(value) for value in scores[1]["stage_one"].values()), "stage one was not over"
    assert first["stage_one"]["pixel_f1"] == first["teacher"]["pixel_f1"] == last["stage_one"]["pixel_f1"]
    assert last["teacher"]["image_auroc"] != last["stage_one"]["image_auroc"] or not same(
        *map(state_of, method.parts())
    )
    trainer.test(method, datamodule=tiny_glands(), verbose=False)
    assert list(method.scores["test"])[:3] == ["stage_one", "teacher", "student"]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 6), (2, 8), (None, 9)])
def test_switches_go_on_while_validation_rises(scripted, patience, epochs):
    """Chances before epochs 4, 6 and 8; the first finds a better student, the later ones do not."""
    student = [math.nan, math.nan, 0.3, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]
    method = scripted(tiny_ifkd(switch={"patience": patience}), [0.5, 0.5], student)
    trainer = fit(method, tiny_glands(), epochs=9, limit_train_batches=1)
    assert (trainer.current_epoch, int(method.switches)) == (epochs, 1)


def test_a_run_that_had_given_up_trains_no_more_when_it_is_resumed(scripted, tmp_path):
    method = scripted(tiny_ifkd(switch={"patience": 1}), [0.2, 0.2], [math.nan] * 2 + [0.9] * 3)
    fit(method, tiny_glands(), epochs=8, **checkpointing(tmp_path))
    again = tiny_ifkd(switch={"patience": 1})
    fit(again, tiny_glands(), epochs=8, start=tmp_path / "epoch3.ckpt")
    assert same(state_of(method.student), state_of(again.student))
    assert again.fruitless == method.fruitless == 1


def test_the_teacher_alone_for_the_whole_run():
    """The control: as many epochs as a student gets, and no student at all."""
    method, watch = tiny_ifkd(teacher_epochs=None), Watch()
    method.check_monitor(method.default_monitor)
    trainer = fit(method, tiny_glands(), epochs=4, callbacks=[watch])
    assert all(not same(start[0], end[0]) for start, end in zip(watch.start, watch.end, strict=True))
    assert same(watch.start[0][1], watch.end[3][1])
    assert math.isfinite(trainer.callback_metrics["val/teacher/image_loss"])
    with pytest.raises(UserError, match="as teacher sees them"):
        method.check_monitor("val/student/image_loss")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    method = tiny_ifkd(switch={"rule": "periodic"})
    trainer = fit(method, tiny_glands(), epochs=7, **checkpointing(folder))
    return folder, state_of(method), {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("epoch", [0, 1, 2, 3, 4, 5])
def test_resume_is_exact_in_both_stages_and_around_switches(uninterrupted, tmp_path, epoch):
    """Stage one is epochs 0 and 1; switches come before epochs 4 and 6."""
    folder, expected, metrics = uninterrupted
    method = tiny_ifkd(switch={"rule": "periodic"}, seed=0)
    for parameter in method.parameters():
        parameter.data.add_(1)
    settings = checkpointing(tmp_path)
    trainer = L.Trainer(
        max_epochs=7,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **settings,
    )
    trainer.fit(method, datamodule=tiny_glands(), ckpt_path=folder / f"epoch{epoch}.ckpt", weights_only=True)
    for name, value in method.state_dict().items():
        assert torch.equal(value, expected[name]) or value.isnan().all(), name
    resumed = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in metrics.keys() & resumed.keys():
        assert resumed[name] == pytest.approx(metrics[name], nan_ok=True, abs=0), name
    assert int(method.switches) == 2


def test_checkpoints_hold_what_validation_scored(uninterrupted):
    """Switches come at the start of an epoch: the checkpoint of the epoch before still has the old roles."""
    folder, *_ = uninterrupted
    states = [torch.load(folder / f"epoch{epoch}.ckpt", weights_only=True)["state_dict"] for epoch in (2, 3)]
    teachers = [{name: value for name, value in state.items() if name.startswith("teacher.")} for state in states]
    assert same(*teachers)
    assert states[1]["switches"] == 0


def test_masks_never_reach_a_weight():
    """Training and selection by labels: scrambled masks of training and validation leave every bit as it is."""
    clean, scrambled = tiny_glands(), tiny_glands()
    scrambled.setup()
    scrambled._truth = 1 - scrambled._truth
    scrambled._masks.clear()
    methods = [tiny_ifkd(), tiny_ifkd()]
    for method, data in zip(methods, (clean, scrambled), strict=True):
        fit(method, data, epochs=5)
    assert not torch.equal(clean.masks("val"), scrambled.masks("val"))
    for name, value in methods[0].state_dict().items():
        assert torch.equal(value, methods[1].state_dict()[name]) or value.isnan().all(), name


def test_masks_of_training_images_are_not_even_read(monkeypatch):
    data = tiny_glands()
    data.setup()
    read = data.read_masks
    asked = []
    monkeypatch.setattr(data, "read_masks", lambda positions: asked.append(positions) or read(positions))
    batches = []
    method = tiny_ifkd()
    watch = L.Callback()
    watch.on_train_batch_start = lambda trainer, module, batch, batch_idx: batches.append(batch)
    fit(method, data, epochs=3, callbacks=[watch])
    assert asked == []
    assert batches
    assert all(type(batch) is ImageBatch for batch in batches)
    assert "train" not in data._masks


def test_masks_may_judge_on_request_and_the_record_says_so(capsys):
    method = tiny_ifkd()
    method.check_monitor("val/student/image_loss")
    assert (method.selected_by, method.metric) == ("validation labels", "image_loss")
    assert capsys.readouterr().out == ""
    method.check_monitor("val/student/pixel_f1")
    assert (method.selected_by, method.metric) == ("validation masks", "pixel_f1")
    assert method.model_card["selected_by"] == "validation masks"
    assert "masks of validation images select" in capsys.readouterr().out
    fit(method, tiny_glands(), epochs=3)
    assert method.best.score == method.scores["val"]["student"]["pixel_f1"], "higher is better"


@pytest.mark.parametrize("wish", ["monitor", "tuned_by"])
def test_masks_cannot_judge_where_no_tumour_is_outlined(monkeypatch, wish):
    """Negative images have masks without a file: alone they would select the emptiest maps."""
    data = tiny_glands()
    data.setup()
    monkeypatch.setitem(data._masks, "val", torch.zeros_like(data.masks("val")))
    method = tiny_ifkd(reading=MapReading(tuned_by="masks" if wish == "tuned_by" else "labels"))
    method.check_monitor("val/student/pixel_f1" if wish == "monitor" else method.default_monitor)
    with pytest.raises(UserError, match="no validation image has a mask"):
        fit(method, data, epochs=3)


@pytest.mark.parametrize(
    "monitor",
    [
        "test/student/image_loss",
        "val/stage_one/image_loss",
        "val/model/image_loss",
        "val/student/bag_loss",
        "val/student/pixel_hd",
        "x",
    ],
)
def test_nothing_else_may_select(monitor):
    with pytest.raises(UserError, match="validation images only"):
        tiny_ifkd().check_monitor(monitor)


def test_default_monitor_needs_no_mask():
    assert tiny_ifkd().default_monitor == "val/student/image_loss"


def test_the_student_has_no_scores_before_it_learns():
    method = tiny_ifkd()
    trainer = fit(method, tiny_glands(), epochs=3, limit_train_batches=1)
    assert math.isfinite(trainer.callback_metrics["val/student/image_loss"])
    method = tiny_ifkd(teacher_epochs=1)
    with pytest.raises(UserError, match="ends before the student phase begins"):
        fit(method, tiny_glands(), epochs=1)
    method = tiny_ifkd()
    seen = []
    watch = L.Callback()
    watch.on_validation_end = lambda trainer, _: seen.append(float(trainer.callback_metrics["val/student/image_loss"]))
    fit(method, tiny_glands(), epochs=3, callbacks=[watch])
    assert [math.isnan(value) for value in seen] == [True, True, False]


@pytest.mark.parametrize("stage_one", ["dice", "gm_bce"])
@pytest.mark.parametrize("mode", ["fusion", "layer", "output"])
@pytest.mark.parametrize(
    "wce", [{"weight": 0.0}, {"target": "trunc", "space": "prob"}, {"target": "soft", "easy_examples": False}]
)
def test_every_reading_trains(stage_one, mode, wce):
    method = tiny_ifkd(stage_one=stage_one, mode=mode, wce=wce, teacher_epochs=1)
    fit(method, tiny_glands(train=8), epochs=2)
    assert all(value.isfinite().all() for value in method.student.state_dict().values())


def test_student_loss_is_distillation_plus_weighted_cross_entropy():
    method = tiny_ifkd(wce={"weight": 3.0})
    fitted = fit(method, tiny_glands(), epochs=3).callback_metrics
    terms = {name: float(fitted[f"terms/student_{name}"]) for name in ("distillation", "wce")}
    assert float(fitted["loss/student"]) == pytest.approx(terms["distillation"] + 3 * terms["wce"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 3}, "3 classes"),
        ({"teacher_epochs": 0}, "teacher_epochs=0"),
        ({"wce": {"weight": -1}}, "wce.weight"),
        ({"switch": {"period": 0}}, "switch.period=0"),
        ({"gm_exponent": 0.5}, "gm_exponent=0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        tiny_ifkd(**settings)


@pytest.mark.slow
def test_the_student_beats_its_teacher_on_drawn_tissue():
    """The whole method at a small size: 64x64 images, a narrow VGG-MIL, selection by masks as in the paper."""
    from functools import partial

    from kd_mil.models.segmenters.vgg import VggMIL

    parts = image_parts(
        instance_shape=(3, 64, 64),
        segmenter=partial(VggMIL, widths=(8, 16, 32)),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
    )
    method = tiny_ifkd(switch={"rule": "never"}, teacher_epochs=12, **parts)
    method.check_monitor("val/student/pixel_f1_pos")
    data = tiny_glands(train=128, val=32, test=64, size=64, batch=8)
    trainer = fit(method, data, epochs=26)
    method.student.load_state_dict(method.best.network.state_dict())
    [scores] = trainer.test(method, datamodule=data, verbose=False)
    assert scores["test/student/pixel_f1_pos"] > scores["test/teacher/pixel_f1_pos"] + 0.02
    assert scores["test/student/pixel_f1_pos"] > 0.7
