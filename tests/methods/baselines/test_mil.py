"""A bag classifier on its own: its steps by hand, what it says of instances, and that it sees bag labels only."""

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.checkpoints import AtomicCheckpointIO, read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.methods.baselines.mil import MIL
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.pooling import Mean
from kd_mil.training.selection import BestCheckpoint
from tests.support.methods import make_mhim, make_mil, make_weno
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_splits


def test_an_epoch_equals_the_plain_loop():
    """Mean pooling with SGD and momentum, written out bag by bag."""
    model = make_mil(aggregator=Mean)
    plain = copy.deepcopy(model)
    data = TinyData(tiny_splits())
    order = []

    class Watch(MIL):
        def training_step(self, bags, batch_idx):
            order.append(bags)
            super().training_step(bags, batch_idx)

    model.__class__ = Watch
    fit(model, data)
    parts = [plain.encoder, plain.aggregator]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in parts]
    assert len(order) == len(data.splits.train)
    for bags in order:
        linear, classifier = plain.encoder.linear, plain.aggregator.classifier
        features = torch.relu(bags.instances @ linear.weight.T + linear.bias)
        logits = classifier(features.mean(0))
        loss = torch.logsumexp(logits, 0) - logits[bags.labels[0]]
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_control_moves_its_encoder_as_often_as_weno():
    """12 bags, and their instances 8 at a time; each step of either network moves the encoder once."""
    taken = []
    for method in (make_weno(norm=False), make_mil(as_many_updates_as_weno=True)):
        trainer = fit(method, TinyData(tiny_splits(), instances_per_step=8))
        taken.append(trainer.num_training_batches)
    instances = int(tiny_splits().bags.sizes[tiny_splits().train].sum())
    assert taken == [12 + -(-instances // 8)] * 2


@pytest.mark.parametrize("aggregator", [tiny_abmil(), partial(DSMIL)], ids=["abmil", "dsmil"])
def test_instance_labels_reach_neither_weights_nor_the_selected_checkpoint(aggregator, tmp_path):
    splits = tiny_splits()
    selected = []
    for number, change in enumerate((lambda y: y, lambda y: torch.full_like(y, -1), lambda y: 1 - y)):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make_mil(aggregator=aggregator)
        folder = tmp_path / str(number)
        best = BestCheckpoint(dirpath=str(folder), filename="best", monitor=model.default_monitor, mode="min")
        extras = {"callbacks": [best], "enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}
        fit(model, TinyData(splits._replace(bags=bags)), epochs=4, **extras)
        selected.append(read_checkpoint(folder / "best.ckpt"))
    for other in selected[1:]:
        assert other["epoch"] == selected[0]["epoch"]
        assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in selected[0]["state_dict"].items())


def test_instance_probabilities_are_attention_scaled_by_its_training_range():
    model = make_mil()
    data = TinyData(tiny_splits())
    fit(model, data)
    model.eval()
    bags = data.bags.batch(data.splits.test)
    prediction = model.predict_bags(bags)["model"]
    low, high = float(model.memory.low), float(model.memory.high)
    expected = ((prediction.instance_scores - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(prediction.instance_probs, expected)
    assert low < high
    torch.testing.assert_close(prediction.bag_probs.sum(1), torch.ones(len(bags.sizes), dtype=torch.float64))


@pytest.mark.parametrize("make", [make_mil, make_mhim])
def test_the_attention_range_is_that_of_the_last_epoch_however_seldom_validation_comes(make, tmp_path):
    """Of one epoch, and in the checkpoint of an epoch that was not validated."""
    ranges = []
    for every in (1, 2, 3):
        model = make()
        fit(model, TinyData(tiny_splits()), epochs=4, check_val_every_n_epoch=every)
        ranges.append((float(model.memory.low), float(model.memory.high)))
    assert ranges[1:] == ranges[:1] * 2
    assert ranges[0] != (0, 1)


def test_a_run_with_a_token_budget_goes_on_with_its_next_epoch(tmp_path):
    """Its epochs have no length, so Lightning asks for a batch before the first resumed epoch has begun."""
    first, second, straight = (make_mil() for _ in range(3))
    budget = {"bags_per_step": 4, "max_instances_per_step": 12}
    last = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    safe = {"plugins": [AtomicCheckpointIO()]}
    fit(straight, TinyData(tiny_splits(), **budget), epochs=4)
    fit(first, TinyData(tiny_splits(), **budget), epochs=2, enable_checkpointing=True, callbacks=[last])
    fit(second, TinyData(tiny_splits(), **budget), epochs=4, start=tmp_path / "last.ckpt", **safe)
    state = second.state_dict()
    assert all(torch.equal(state[name], value) for name, value in straight.state_dict().items())


def test_three_classes():
    splits = tiny_splits(classes=3)
    model = make_mil(num_classes=3)
    trainer = fit(model, TinyData(splits), epochs=2)
    assert model.predict_bags(splits.bags.batch(splits.test))["model"].bag_probs.shape == (len(splits.test), 3)
    assert 0 <= trainer.callback_metrics["val/model/bag_accuracy"] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"instance_stream_weight": 1.5}, "method.instance_stream_weight=1.5"),
        ({"gradient_clip": 0.0}, "gradient_clip=0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_mil(**settings)
