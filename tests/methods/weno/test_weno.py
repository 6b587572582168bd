"""WENO against an independent plain loop, and the promises its algorithm box makes."""

import copy
from functools import partial

import pytest
import torch

from kd_mil.callbacks.distillation import DistillationMonitor
from kd_mil.core.errors import UserError
from kd_mil.data.batches import BagBatch
from kd_mil.data.samplers import InTurn
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.multiclass import MultiClassWENO
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.heads import InstanceHead
from tests.support.methods import make_weno
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_parts, tiny_splits


def plain_weno(model, batches_of_epoch, epochs, *, bank, per_bag, negative_weight, threshold, start_epoch):
    """The algorithm of the paper bag by bag, written without any code of the package but the networks' weights."""
    encoder, attention_net, head = model.encoder, model.aggregator, model.student_head
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in (encoder, attention_net, head)]

    def step(loss, chosen):
        for index in chosen:
            optimizers[index].zero_grad()
        loss.backward()
        for index in chosen:
            optimizers[index].step()

    def logits_of(features):
        inner, outer = attention_net.attention.tanh_branch, attention_net.attention.score
        hidden = torch.tanh(features @ inner.weight.T + inner.bias)
        return (hidden @ outer.weight.T + outer.bias).squeeze(1)

    for epoch in range(epochs):
        known, owner_of, lows, highs = {}, {}, {}, {}
        for batch in batches_of_epoch(epoch):
            if isinstance(batch, BagBatch):
                bag, label = int(batch.bag_indices[0]), int(batch.labels[0])
                features = encoder(batch.instances)
                kept = features
                if epoch >= start_epoch and label == 1:
                    with torch.no_grad():
                        probs = torch.softmax(head(features), 1)[:, 1]
                    keep = probs <= threshold
                    if not keep.any():
                        keep[probs.argmin()] = True
                    kept = features[keep]
                scores = logits_of(kept)
                weights = torch.exp(scores) / torch.exp(scores).sum()
                bag_logits = attention_net.classifier((weights[:, None] * kept).sum(0))
                with torch.no_grad():
                    for index, score in zip(batch.instance_ids.tolist(), logits_of(features), strict=True):
                        known[index], owner_of[index] = score, bag
                group = bag if per_bag else 0
                lows[group] = min(lows.get(group, float("inf")), scores.min().item())
                highs[group] = max(highs.get(group, -float("inf")), scores.max().item())
                step(-torch.log_softmax(bag_logits, 0)[label], (0, 1))
            else:
                features = encoder(batch.instances)
                with torch.no_grad():
                    fresh = logits_of(features)
                targets = []
                for row, index in enumerate(batch.instance_ids.tolist()):
                    group = owner_of[index] if per_bag else 0
                    score = known[index] if bank else fresh[row]
                    y = (score - lows[group]) / max(highs[group] - lows[group], 1e-5)
                    alike = per_bag and highs[group] - lows[group] < 1e-5  # a bag whose instances nothing tells apart
                    targets.append((1.0 if alike else min(max(float(y), 0.0), 1.0)) * int(batch.labels[row]))
                y = torch.tensor(targets)
                q = torch.softmax(head(features), 1)
                terms = negative_weight * (1 - y) * q[:, 0].log() + (1 - negative_weight) * y * q[:, 1].log()
                step(-terms.mean(), (0, 2))


@pytest.fixture
def double_precision():
    """BatchNorm over bags of two amplifies rounding; in float64 a wrong formula is the only source of difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("attention_from", ["bank", "recompute"])
@pytest.mark.parametrize("normalisation", ["training_set", "bag"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_two_epochs_equal_the_plain_loop(attention_from, normalisation, threshold, double_precision):
    """Trainer, samplers, packing, memory and mining together end at the weights of the plain loop."""
    hpm = HardPositiveMining(mode="threshold", threshold=threshold, start_epoch=1)
    switches = {"attention_from": attention_from, "normalisation": normalisation, "negative_weight": 0.2, "hpm": hpm}
    model = make_weno(**switches)
    oracle = copy.deepcopy(model)
    data = TinyData(tiny_splits(), seed=4)

    fit(model, data, epochs=2)

    def batches_of_epoch(epoch):
        return InTurn([data.bag_loader(), data.instance_loader()], epoch=lambda: epoch)

    plain_weno(
        oracle,
        batches_of_epoch,
        epochs=2,
        bank=attention_from == "bank",
        per_bag=normalisation == "bag",
        negative_weight=0.2,
        threshold=threshold,
        start_epoch=1,
    )
    for (name, trained), expected in zip(model.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, atol=1e-9, rtol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


def snapshot(model):
    parts = {"encoder": model.encoder, "teacher": model.aggregator, "student": model.student_head}
    if model.student_encoder is not None:
        parts["student_encoder"] = model.student_encoder
    return {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}


def moved(before, after):
    pairs = {name: zip(before[name], after[name], strict=True) for name in before}
    return {name for name in before if any(not torch.equal(old, new) for old, new in pairs[name])}


@pytest.mark.parametrize(
    ("shared", "teacher_moves", "student_moves"),
    [
        (True, {"encoder", "teacher"}, {"encoder", "student"}),
        (False, {"encoder", "teacher"}, {"student_encoder", "student"}),
    ],
)
def test_each_phase_moves_exactly_its_parts(shared, teacher_moves, student_moves):
    """Update 1 of Fig. 2 leaves the student alone, update 2 the teacher; all of a part's weights get a gradient."""
    model = make_weno(shared_encoder=shared, norm=False)
    seen = {}

    class Watch(WENO):
        def training_step(self, batch, batch_idx):
            before = snapshot(self)
            super().training_step(batch, batch_idx)
            seen.setdefault(type(batch).__name__, []).append(moved(before, snapshot(self)))

    model.__class__ = Watch
    fit(model, TinyData(tiny_splits(), bags_per_step=4))
    assert set.union(*seen["BagBatch"]) == teacher_moves
    assert set.union(*seen["InstanceBatch"]) == student_moves


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"attention_from": "recompute"},
        {"hpm": HardPositiveMining(mode="threshold", threshold=0.4, start_epoch=0)},
        {"aggregator": partial(DSMIL), "attention_source": "instance"},
        {"instance_score": "validation"},
    ],
    ids=["bank", "recompute", "mined", "dsmil", "reading chosen"],
)
def test_instance_labels_cannot_reach_the_weights(switches, tmp_path):
    """Weak supervision, proved: erased or scrambled instance labels leave every weight bit-identical.

    Also while a callback scores pseudo-labels by them.
    """
    splits = tiny_splits()
    states = []
    for change in (lambda y: y, lambda y: torch.full_like(y, -1), lambda y: 1 - y):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make_weno(**switches)
        fit(model, TinyData(splits._replace(bags=bags)), epochs=3, callbacks=[DistillationMonitor(str(tmp_path))])
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_same_seed_same_weights_other_seed_other_weights():
    def trained(seed):
        model = make_weno(seed=seed, aggregator=tiny_abmil(dropout=0.3))
        fit(model, TinyData(tiny_splits(), seed=seed), epochs=2)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_several_bags_a_step_average_their_losses():
    """bags_per_step=4 takes the mean gradient of four single bags (no batch statistics involved)."""
    model = make_weno(norm=False)
    bags = tiny_splits().bags
    model.memory.allocate(num_bags=len(bags), num_instances=len(bags.instances))
    model.teacher_loss(bags.batch(torch.arange(4))).backward()
    together = [p.grad.clone() for p in model.aggregator.parameters()]
    model.zero_grad()
    for index in range(4):
        (model.teacher_loss(bags.batch(torch.tensor([index]))) / 4).backward()
    for one, other in zip(together, model.aggregator.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, atol=1e-6, rtol=1e-5)


def test_mining_hides_what_the_student_finds_and_says_so():
    """With threshold 0 every positive bag keeps one instance; the ids of the others are noted."""
    model = make_weno(hpm=HardPositiveMining(mode="threshold", threshold=0.0, start_epoch=0))
    splits = tiny_splits()
    fit(model, TinyData(splits))
    sizes, labels = splits.bags.sizes[splits.train], splits.bags.labels[splits.train]
    assert len(torch.cat(model.notes.dropped)) == int((sizes - 1)[labels == 1].sum())


class Listening(HardPositiveMining):
    """Keeps every instance, and the probabilities it was asked with."""

    def active(self, epoch, run_epochs=None):
        return True

    def keep(self, student_probs, sizes, labels):
        self.__dict__.setdefault("heard", []).append(student_probs)
        return torch.ones_like(student_probs, dtype=torch.bool)


@pytest.mark.parametrize("method", [WENO, MultiClassWENO])
def test_mining_asks_the_student_without_dropout_and_leaves_it_training(method):
    torch.manual_seed(0)
    head, hpm = partial(InstanceHead, hidden=(7,), dropout=0.5), Listening()
    model = method(**tiny_parts(norm=False), aggregator=tiny_abmil(), student_head=head, hpm=hpm)
    bags = tiny_splits().bags
    model.memory.allocate(num_bags=len(bags), num_instances=len(bags.instances))
    batch = bags.batch(torch.tensor([1, 3]))  # both positive
    model.train().teacher_loss(batch)
    assert all(part.training for part in model.student_head.modules())
    with torch.no_grad():
        expected = model.student_head.eval()(model.encoder(batch.instances)).softmax(1)[:, 1]
    torch.testing.assert_close(hpm.heard[0], expected)


def test_every_training_instance_has_a_score_even_when_mined():
    model = make_weno(hpm=HardPositiveMining(mode="threshold", threshold=0.0, start_epoch=0))
    splits = tiny_splits()
    fit(model, TinyData(splits))
    assert model.memory.scores[splits.bags.instances_of(splits.train)].isfinite().all()


@pytest.mark.parametrize("shared", [True, False])
def test_the_student_may_learn_at_a_rate_of_its_own(shared):
    model = make_weno(shared_encoder=shared, student_lr=0.25)
    rates = [group["lr"] for optimizer in model.configure_optimizers() for group in optimizer.param_groups]
    own = make_weno(shared_encoder=shared).configure_optimizers()[0].param_groups[0]["lr"]
    assert rates == [own, own, 0.25] + [0.25] * (not shared), "encoder, aggregator, head, the student's encoder"


def test_student_learns_the_instances_from_bag_labels_alone():
    model = make_weno(negative_weight=0.4)
    trainer = fit(model, TinyData(tiny_splits(bags=120), bags_per_step=2), epochs=15)
    assert trainer.callback_metrics["val/student/instance_auroc"] > 0.95
    assert trainer.callback_metrics["val/teacher/bag_auroc"] > 0.9


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"num_classes": 3}, "WENO is a binary method"),
        ({"negative_weight": 1.0}, "method.negative_weight=1.0"),
        ({"student_lr": 0.0}, "method.student_lr=0.0"),
        ({"aggregator": DSMIL, "attention_from": "recompute"}, "method.attention_from=bank"),
        ({"aggregator": tiny_abmil(), "attention_source": "instance"}, "no instance stream"),
    ],
)
def test_impossible_switches_are_refused(switches, message):
    with pytest.raises(UserError, match=message):
        make_weno(**switches)


@pytest.mark.parametrize("normalisation", ["training_set", "bag"])
def test_instances_of_bags_that_the_teacher_has_not_seen_have_the_label_of_their_bag(normalisation):
    """Where most bags are positive, `balanced_bags` leaves some out of the first epoch; the student sees them all."""
    splits = tiny_splits(bags=40)
    labels = splits.bags.labels[splits.train]
    most = splits._replace(train=torch.cat([splits.train[labels > 0], splits.train[labels == 0][:2]]))
    model = make_weno(normalisation=normalisation)
    fit(model, TinyData(most, balanced_bags=True))
    ids, pseudo_labels = (torch.cat(column) for column in zip(*model.notes.pseudo_labels, strict=True))
    unseen = model.memory.scores[ids].isinf()
    positive = splits.bags.labels[splits.bags.bag_of_instance[ids].long()] > 0
    assert (unseen & positive).any()
    assert (pseudo_labels[unseen & positive] == 1).all()
    assert (pseudo_labels[~positive] == 0).all()
    assert (pseudo_labels[~unseen & positive] < 1).any()
