"""Distill-to-Label against plain loops, its phases, and the promises they make."""

import copy
import json
import math
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.checkpoints import AtomicCheckpointIO
from kd_mil.core.errors import UserError
from kd_mil.methods.distill_to_label.bag_classifier import BagClassifier, relative_attention
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.pooling import Max, Mean
from kd_mil.models.aggregators.transmil import TransMIL
from kd_mil.models.preprocess import Preprocess
from kd_mil.training.lr_decay import LearningRateDecay
from tests.support.command import kd_mil
from tests.support.configs import compose_run
from tests.support.methods import make_d2l, quiet_trainer
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_splits


def train(model, **trainer):
    return fit(model, TinyData(tiny_splits(), bags_per_step=2), epochs=-1, **trainer)


def forward(network, instances):
    """Logits of one bag, written out from the weights: encoder, gated attention, classifier."""
    linear, pooling = network.encoder.linear, network.aggregator
    features = torch.relu(instances @ linear.weight.T + linear.bias)
    scores = []
    for h in features:
        v = torch.tanh(pooling.attention.tanh_branch.weight @ h + pooling.attention.tanh_branch.bias)
        u = torch.sigmoid(pooling.attention.sigmoid_branch.weight @ h + pooling.attention.sigmoid_branch.bias)
        scores.append(pooling.attention.score.weight[0] @ (v * u) + pooling.attention.score.bias[0])
    weights = torch.exp(torch.stack(scores))
    z = sum(a * h for a, h in zip(weights / weights.sum(), features, strict=True))
    return pooling.classifier.weight @ z + pooling.classifier.bias


def bernoulli(logits, temperature=1.0):
    return torch.sigmoid((logits[1] - logits[0]) / temperature)


def cross_entropy(target, p):
    return -target * torch.log(p) - (1 - target) * torch.log(1 - p)


def kl(p, q):
    return p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_double(model):
    return model.double(), tiny_splits().bags


@pytest.mark.parametrize("shared_pass", [True, False])
def test_teacher_terms_equal_plain_loops(shared_pass, double_precision, monkeypatch):
    """Eq. 3 bag by bag, each view through the network by itself; with one pass of the encoder and with several."""
    model, data = in_double(make_d2l(vat={"subsets": 2}))
    data = copy.copy(data)
    object.__setattr__(data, "instances", data.instances.double())
    bags = data.batch(torch.tensor([3, 0, 5]))
    if not shared_pass:
        monkeypatch.setattr(BagClassifier, "pointwise", False)
    total = len(bags.instance_ids)
    noise, noise_counts = torch.randn(5, 6), [2, 1, 2]
    moved = bags.instances + 0.1 * torch.randn(total, 6)
    subsets = [model.vat.subset(bags.sizes.tolist()) for _ in range(2)]
    drawn = iter(subsets)
    monkeypatch.setattr(model.vat, "noise", lambda clean, sizes: (noise, noise_counts))
    monkeypatch.setattr(model.vat, "perturb", lambda clean, predict, step: moved)
    monkeypatch.setattr(model.vat, "subset", lambda sizes: next(drawn))
    terms = model.teacher_terms(bags)

    expected = dict.fromkeys(terms, 0.0)
    owners = torch.arange(3).repeat_interleave(bags.sizes)
    for bag in range(3):
        clean = bags.instances[owners == bag]
        p = bernoulli(forward(model.teacher, clean))
        expected["label"] += cross_entropy(float(bags.labels[bag]), p) / 3
        noisy = torch.cat([clean, noise.split(noise_counts)[bag]])
        expected["noise"] += cross_entropy(p, bernoulli(forward(model.teacher, noisy))) / 3
        expected["perturbation"] += cross_entropy(p, bernoulli(forward(model.teacher, moved[owners == bag]))) / 3
        for positions, _ in subsets:
            kept = positions[owners[positions] == bag]
            q = bernoulli(forward(model.teacher, bags.instances[kept]))
            expected["subset"] += cross_entropy(q, q) / 6
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("negative_bags", ["teacher", "zero"])
@pytest.mark.parametrize("tau_squared", [True, False])
def test_student_terms_equal_plain_loops(reduction, negative_bags, tau_squared, double_precision):
    """Eq. 5 bag by bag, with K separate forwards for the K instances of a bag."""
    settings = {"reduction": reduction, "negative_bags": negative_bags, "tau_squared": tau_squared, "temperature": 3.0}
    model, data = in_double(make_d2l(kd=settings))
    object.__setattr__(data, "instances", data.instances.double())
    bags = data.batch(torch.tensor([4, 1, 2]))
    terms = model.student_terms(bags)

    scale = 9.0 if tau_squared else 1.0
    expected = dict.fromkeys(terms, 0.0)
    for bag, own in enumerate(bags.instances.split(bags.sizes.tolist())):
        teacher, student = forward(model.teacher, own), forward(model.student, own)
        expected["label"] += cross_entropy(float(bags.labels[bag]), bernoulli(student)) / 3
        expected["bag"] += scale * kl(bernoulli(teacher, 3.0), bernoulli(student, 3.0)) / 3
        weight = 1 / 3 / (len(own) if reduction == "mean" else 1)
        for instance in own:
            teacher, student = forward(model.teacher, instance[None]), forward(model.student, instance[None])
            p = bernoulli(student)
            known = negative_bags == "zero" and bags.labels[bag] == 0
            divergence = scale * kl(bernoulli(teacher, 3.0), bernoulli(student, 3.0))
            expected["instance"] += weight * (-torch.log(1 - p) if known else divergence)
            expected["entropy"] += weight * cross_entropy(p, p)
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name], msg=name)
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


AGGREGATORS = [tiny_abmil(gated=True), DSMIL, Max, Mean, partial(TransMIL, width=16, heads=2), CLAM]


@pytest.mark.parametrize("aggregator", AGGREGATORS, ids=["abmil", "dsmil", "max", "mean", "transmil", "clam"])
def test_bags_of_one_equal_separate_forwards(aggregator):
    """Any aggregator of the framework takes the place of gated attention."""
    model = make_d2l(aggregator=aggregator).eval()
    bags = tiny_splits().bags.batch(torch.arange(4))
    with torch.no_grad():
        output, together = model.student.read(model.student.encoder(bags.instances), bags.sizes)
        one = torch.tensor([1])
        apart = torch.cat([model.student(instance[None], one).bag_logits for instance in bags.instances])
        torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.bag_logits, model.student(bags.instances, bags.sizes).bag_logits)
    trainer = train(model)
    assert all(math.isfinite(trainer.callback_metrics[f"loss/{role}"]) for role in model.roles)


def test_a_bag_of_one_is_the_classifier_of_its_features():
    model = make_d2l().eval()
    features = torch.randn(7, 8)
    _, logits = model.teacher.read(features, torch.tensor([3, 4]))
    torch.testing.assert_close(logits, model.teacher.aggregator.classifier(features))


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Diary(DistillToLabel):
    """Notes every validation and the networks at the end of every epoch."""

    def on_train_epoch_end(self):
        loss = float(self.trainer.callback_metrics["val/teacher/bag_loss"])
        modes = self.teacher.training, self.student.training
        entry = (
            f"{self.phase} {self.phases.round(self.current_epoch)}",
            loss,
            state_of(self.teacher),
            state_of(self.student),
            modes,
        )
        self.__dict__.setdefault("diary", []).append(entry)


@pytest.mark.parametrize("reload", ["best", "last"])
def test_the_chosen_teacher_is_reloaded_and_stays_frozen_to_the_last_bit(reload):
    """Weights and BatchNorm buffers; the teacher is in eval mode while the student trains, and the other way round."""

    class Spoiled(Diary):
        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            if self.current_epoch == 5:  # so that the last epoch is not the best
                self.teacher.aggregator.classifier.weight.data.mul_(-5)

    model = make_d2l(norm=True, teacher_epochs=6, student_epochs=3, reload=reload)
    model.__class__ = Spoiled
    train(model)
    phases, losses, teachers, students, modes = zip(*model.diary, strict=True)
    assert phases == ("teacher 0",) * 6 + ("student 0",) * 3
    best = min(range(6), key=lambda epoch: losses[epoch])
    assert best != 5
    chosen = {"best": best, "last": 5}[reload]
    assert all(equal(teachers[epoch], teachers[chosen]) for epoch in (6, 7, 8))
    assert losses[6] == losses[chosen]
    assert all(equal(students[epoch], students[0]) for epoch in range(6))
    assert not equal(students[6], students[5])
    assert modes == ((True, False),) * 6 + ((False, True),) * 3


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_resumed_in_either_phase_equals_an_uninterrupted_one(tmp_path, rounds):
    """From the checkpoint of any epoch: all weights, snapshots and metrics to the last bit, rates decaying."""
    epochs = 3 + 3 * rounds

    def run(ckpt_path=None, **trainer):
        optimizer = partial(torch.optim.Adam, lr=0.01)
        model = make_d2l(norm=True, aggregator=tiny_abmil(dropout=0.2), optimizer=optimizer, rounds=rounds)
        callbacks = [LearningRateDecay("cosine"), *trainer.pop("callbacks", [])]
        runner = quiet_trainer(max_epochs=epochs, plugins=[AtomicCheckpointIO()], callbacks=callbacks, **trainer)
        runner.fit(model, datamodule=TinyData(tiny_splits(), bags_per_step=2), ckpt_path=ckpt_path)
        return model, runner.callback_metrics

    every_epoch = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole, metrics = run(enable_checkpointing=True, callbacks=[every_epoch])
    assert len(list(tmp_path.iterdir())) == epochs
    for epoch in range(epochs - 1):
        resumed, again = run(ckpt_path=tmp_path / f"epoch={epoch}.ckpt", enable_checkpointing=False)
        assert equal(state_of(resumed), state_of(whole)), epoch
        for name, value in metrics.items():
            if name.startswith("val/"):
                assert torch.equal(again[name].nan_to_num(-1), value.nan_to_num(-1)), (epoch, name)


def test_the_checkpoint_is_selected_in_the_student_phase(tmp_path):
    """Until it trains the student has no score, so that no earlier epoch is selected; nor is one after a resume."""
    model = make_d2l(teacher_epochs=3, student_epochs=2)
    best = ModelCheckpoint(tmp_path, "best", model.default_monitor, mode="min", save_on_train_epoch_end=True)
    last = ModelCheckpoint(tmp_path, "last", save_top_k=1, save_on_train_epoch_end=True)
    train(model, enable_checkpointing=True, callbacks=[best, last])
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    assert checkpoint["epoch"] in (3, 4)
    assert bool(checkpoint["state_dict"]["student_began"])
    assert math.isfinite(best.best_model_score)
    kept = torch.load(last.best_model_path, weights_only=True)["callbacks"]
    [state] = [state for name, state in kept.items() if "val/student/bag_loss" in name]
    assert state["best_model_path"] == best.best_model_path


def test_student_scores_are_undefined_until_it_trains():
    model = make_d2l(teacher_epochs=2, student_epochs=1)
    seen = []

    class Watch(DistillToLabel):
        def on_train_epoch_end(self):
            seen.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})

    model.__class__ = Watch
    train(model)
    names = {name for name in seen[0] if name.startswith("val/student/")}
    assert {"val/student/bag_loss", "val/student/bag_auroc"} <= names
    assert all(math.isnan(metrics[name]) for metrics in seen[:2] for name in names)
    assert math.isfinite(seen[2]["val/student/bag_loss"])


def test_a_teacher_alone():
    model = make_d2l(student_epochs=0)
    assert model.roles == ("teacher",)
    assert model.default_monitor == "val/teacher/bag_loss"
    metrics = train(model).callback_metrics
    assert not [name for name in metrics if "student" in name]


@pytest.mark.parametrize("vat", [{}, {"mode": "adversarial"}, {"noise_weight": 0, "entropy_weight": 0}])
def test_instance_labels_cannot_reach_the_weights(vat):
    splits, states = tiny_splits(), []
    for change in (lambda y: y, lambda y: torch.full_like(y, -1), lambda y: 1 - y):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make_d2l(vat=vat)
        fit(model, TinyData(splits._replace(bags=bags)), epochs=6)
        states.append(state_of(model))
    assert equal(states[0], states[1])
    assert equal(states[0], states[2])


def test_a_later_round_learns_from_the_best_student():
    model = make_d2l(rounds=2, teacher_epochs=1, student_epochs=2)
    model.__class__ = Diary
    train(model)
    phases, _, teachers, students, _ = zip(*model.diary, strict=True)
    assert phases == ("teacher 0", "student 0", "student 0", "student 1", "student 1")
    assert equal(teachers[3], students[1]) or equal(teachers[3], students[2])
    assert equal(teachers[4], teachers[3])


def test_a_student_may_begin_as_its_teacher():
    model = make_d2l(student_init="teacher", teacher_epochs=1, student_epochs=1)
    model.__class__ = Diary
    train(model, limit_train_batches=1)
    rates = (parameter.abs().max() for parameter in model.student.parameters())
    assert max(rates) > 0
    difference = [
        (a - b).abs().max() for a, b in zip(model.teacher.parameters(), model.student.parameters(), strict=True)
    ]
    assert 0 < max(difference) < 0.1  # one step away


@pytest.mark.parametrize("standardise", [False, True])
def test_the_range_of_noise_is_that_of_the_preprocessed_training_data(standardise):
    model = make_d2l(preprocess=Preprocess(standardise=standardise))
    splits = tiny_splits()
    train(model)
    own = splits.bags.instances[splits.bags.instances_of(splits.train)]
    if standardise:
        own = (own - own.mean(0)) / own.std(0, correction=0)
    torch.testing.assert_close(model.vat.low, own.amin(0))
    torch.testing.assert_close(model.vat.high, own.amax(0))


@pytest.mark.parametrize("instance_score", ["attention", "attention_times_prob"])
def test_attention_as_the_teachers_word_on_instances(instance_score):
    model = make_d2l(instance_score=instance_score).eval()
    bags = tiny_splits().bags.batch(torch.arange(3))
    with torch.no_grad():
        prediction = model.predict_bags(bags)["teacher"]
    for bag, own in enumerate(prediction.attention.double().split(bags.sizes.tolist())):
        expected = (own - own.min()) / (own.max() - own.min())
        expected *= prediction.bag_probs[bag, 1] if instance_score == "attention_times_prob" else 1
        found = prediction.instance_probs.split(bags.sizes.tolist())[bag]
        torch.testing.assert_close(found, expected)
    assert relative_attention(torch.tensor([1.0]), torch.tensor([1])).tolist() == [1.0]


def test_more_than_two_classes_train():
    model = make_d2l(num_classes=3)
    data = TinyData(tiny_splits(bags=36, classes=3), bags_per_step=2)
    metrics = fit(model, data, epochs=6).callback_metrics
    assert math.isfinite(metrics["val/student/bag_loss"])


def test_student_learns_the_instances_from_bag_labels_alone():
    optimizer = partial(torch.optim.Adam, lr=0.01)
    model = make_d2l(teacher_epochs=12, student_epochs=12, optimizer=optimizer)
    metrics = fit(model, TinyData(tiny_splits(bags=120), bags_per_step=2), epochs=24).callback_metrics
    assert metrics["val/student/instance_auroc"] > 0.9
    assert metrics["val/teacher/bag_auroc"] > 0.9


OFF = {"noise": "vat.noise_weight", "perturbation": "vat.perturbation_weight", "subset": "vat.entropy_weight"}


@pytest.mark.parametrize("term", OFF)
def test_each_term_is_off_by_one_override(term):
    config = compose_run("experiment=d2l_colon", f"method.{OFF[term]}=0")
    model = instantiate(config.method, _convert_="all")(instance_shape=(3, 27, 27), num_classes=2)
    assert set(model.vat.weights) == {"label", *OFF} - {term}


def test_weights_of_the_papers_two_data_sets_and_of_the_baseline():
    def weights(*overrides):
        method = instantiate(compose_run(*overrides).method, _convert_="all")
        model = method(instance_shape=(3, 32, 32), num_classes=2)
        return list(model.vat.weights.values()), model.vat.subsets, list(model.kd.weights.values())

    assert weights("experiment=d2l_colon") == ([1.0, 0.5, 0.3, 0.3], 1, [0.3, 0.5, 0.5, 0.1])
    assert weights("experiment=d2l_breast") == ([0.8, 0.8, 0.3, 0.3], 5, [0.3, 0.5, 0.5, 0.1])
    assert weights("experiment=d2l_mnist", "method/vat=off")[0] == [1.0]
    config = compose_run(
        "experiment=d2l_colon", "method.teacher_epochs=4", "method.student_epochs=3", "method.rounds=2"
    )
    model = instantiate(config.method, _convert_="all")(instance_shape=(3, 27, 27), num_classes=2)
    assert model.phases.run_epochs(config.trainer.max_epochs) == 10


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"teacher_epochs": 0}, "method.teacher_epochs=0: must be at least 1"),
        ({"rounds": 0}, "method.rounds=0"),
        ({"kd": {"temperature": 0.0}}, "method.kd.temperature=0.0: must be above 0"),
        ({"kd": {"entropy_weight": -0.1}}, "method.kd.entropy_weight=-0.1"),
    ],
)
def test_impossible_switches_are_refused(switches, message):
    with pytest.raises(UserError, match=message):
        make_d2l(**switches)


@pytest.mark.parametrize(
    ("epochs", "message"),
    [(3, "max_epochs=3 ends before the student phase"), (7, "max_epochs=7, but the phases take 6")],
)
def test_epochs_that_do_not_suit_the_phases_are_refused(epochs, message):
    with pytest.raises(UserError, match=message):
        fit(make_d2l(), TinyData(tiny_splits()), epochs=epochs)


@pytest.mark.slow
def test_the_command_writes_both_roles_and_is_selected_in_the_student_phase(tmp_path):
    small = ["data=digits_mil", "encoder=tiny_cnn", "method.teacher_epochs=2", "method.student_epochs=2"]
    small += ["lr_decay=cosine", "data.max_train_bags=20", "data.max_test_bags=10"]
    kd_mil("run", "experiment=d2l_mnist", *small, "trainer=cpu", "hydra.run.dir=out", cwd=tmp_path)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for role in ("teacher", "student"):
        for name in ("bag_auroc", "instance_auroc", "instance_accuracy", "instance_f1"):
            assert 0 <= metrics[f"test/{role}/{name}"] <= 1
    assert torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] in (2, 3)
    again = ["experiment=d2l_mnist", *small, "trainer=cpu", "select=last"]
    kd_mil("run", *again, "hydra.run.dir=last", cwd=tmp_path)
    assert torch.load(tmp_path / "last" / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 3
    assert json.loads((tmp_path / "last" / "run.json").read_text())["select"] == "last"
    result = kd_mil("run", *again, "ckpt_path=out/checkpoints/last.ckpt", "hydra.run.dir=c", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "belongs to another configuration: its select differs" in result.stderr
    result = kd_mil("run", "experiment=d2l_mnist", *small, "trainer.max_epochs=7", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: trainer.max_epochs=7, but the phases take 4")
