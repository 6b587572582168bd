"""MHIM-MIL against a plain loop, and what its averaged teacher promises."""

import copy
from functools import partial

import lightning as L
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.baselines.mhim import MHIM, consistency_loss
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.pooling import Mean
from tests.support.methods import make_mhim
from tests.support.tiny import TinyData, fit, tiny_splits


def test_consistency_by_hand():
    """softmax((log 4, 0) / 0.5) = (16, 1)/17 against log-softmax((0, log 3)) = log (1/4, 3/4)."""
    student, teacher = torch.tensor([[1.0, 3.0]]).log(), torch.tensor([[4.0, 1.0]]).log()
    expected = -(16 / 17 * torch.tensor(0.25).log() + 1 / 17 * torch.tensor(0.75).log())
    torch.testing.assert_close(consistency_loss(student, teacher, temperature=0.5), expected)


def plain_mhim(model, batches, ratio, momentum, weight):
    """Bag by bag: score with the teacher, drop the highest, classify, stay consistent, move the average."""
    parts = [model.encoder, model.aggregator]
    slow = [copy.deepcopy(part) for part in parts]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in parts]
    for bags in batches:
        size, label = bags.sizes, bags.labels
        n = int(size)
        with torch.no_grad():
            whole = slow[1](slow[0](bags.instances), size)
        masked = min(-int(-ratio * n // 1), n)
        kept = whole.attention_logits.argsort()[: max(n - masked, 1)].sort().values
        output = parts[1](parts[0](bags.instances)[kept], torch.tensor([len(kept)]))
        targets = (whole.embedding / 0.1).softmax(1)
        loss = torch.nn.functional.cross_entropy(output.bag_logits, label)
        loss = loss - weight * (targets * output.embedding.log_softmax(1)).sum()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            for old, new in zip(slow, parts, strict=True):
                for one, other in zip(old.parameters(), new.parameters(), strict=True):
                    one.copy_(momentum * one + (1 - momentum) * other)
    return slow


def test_an_epoch_equals_the_plain_loop():
    """With mask_share 1 there is no chance in it: student and teacher end at the weights of the loop."""
    settings = {"mask_ratio": 0.3, "mask_share": 1.0, "momentum": 0.9, "consistency_weight": 0.5}
    model = make_mhim(**settings)
    plain, seen = copy.deepcopy(model), []

    class Watch(MHIM):
        def training_step(self, bags, batch_idx):
            seen.append(bags)
            super().training_step(bags, batch_idx)

    model.__class__ = Watch
    fit(model, TinyData(tiny_splits()))
    slow = plain_mhim(plain, seen, ratio=0.3, momentum=0.9, weight=0.5)
    for ours, theirs in zip([*model.parts(), *model.teacher], [*plain.parts(), *slow], strict=True):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_before_its_start_it_is_the_plain_bag_classifier_with_an_average():
    masked, bare = (make_mhim(start_epoch=start, mask_ratio=0.5) for start in (0, 5))
    for model in (masked, bare):
        fit(model, TinyData(tiny_splits()), epochs=2)
    without = make_mhim(mask_ratio=0.0, consistency_weight=0.0)
    fit(without, TinyData(tiny_splits()), epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), without.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(masked.parameters(), without.parameters(), strict=True))


def test_the_teacher_is_never_trained():
    model = make_mhim(momentum=1.0, norm=True)
    before = [p.clone() for p in model.teacher.parameters()]
    fit(model, TinyData(tiny_splits()), epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.teacher.parameters(), strict=True))
    assert torch.equal(model.teacher[0].norm.running_mean, model.encoder.norm.running_mean)


def test_instance_labels_cannot_reach_the_weights():
    splits, states = tiny_splits(), []
    for change in (lambda y: y, lambda y: torch.full_like(y, -1), lambda y: 1 - y):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make_mhim(aggregator=partial(DSMIL), mask_ratio=0.3)
        fit(model, TinyData(splits._replace(bags=bags)), epochs=2)
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_interrupted_and_continued_equals_uninterrupted(tmp_path):
    """The averaged teacher is in the checkpoint, and which instances are drawn is a function of seed and epoch."""
    straight, first, second = (make_mhim(mask_ratio=0.3, mask_share=0.5) for _ in range(3))
    fit(straight, TinyData(tiny_splits()), epochs=4)
    fit(first, TinyData(tiny_splits()), epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    runner = L.Trainer(max_epochs=4, accelerator="cpu", use_distributed_sampler=False, **quiet)
    runner.fit(second, datamodule=TinyData(tiny_splits()), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    state = second.state_dict()
    assert all(torch.equal(state[name], value) for name, value in straight.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mask_ratio": 1.5}, "mask_ratio"),
        ({"mask_share": 0.0}, "mask_share"),
        ({"mask_ratio": 0.6, "low_ratio": 0.4}, "mask_ratio"),
        ({"temperature": 0.0}, "temperature"),
        ({"aggregator": Mean}, "no attention"),
    ],
)
def test_mistakes_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        make_mhim(**setting)
