"""MIL-RNN: its two phases by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.methods.baselines.rnn_mil import RNNMIL, TileRNN, best_first
from tests.support.methods import make_rnn_mil
from tests.support.tiny import TinyData, fit, tiny_splits


def test_the_rnn_reads_as_its_formula_says():
    """state = ReLU(A x + a + B state + b), zero at first; padding after the end of a sequence changes nothing."""
    torch.manual_seed(0)
    rnn = TileRNN(4, 3, state=5)
    sequences, lengths = torch.randn(2, 3, 4), torch.tensor([3, 2])
    for sequence, length, logits in zip(sequences, lengths.tolist(), rnn(sequences, lengths), strict=True):
        state = torch.zeros(5)
        for tile in sequence[:length]:
            state = F.relu(rnn.read.weight @ tile + rnn.read.bias + rnn.keep.weight @ state + rnn.keep.bias)
        torch.testing.assert_close(logits, rnn.classifier.weight @ state + rnn.classifier.bias)


def test_the_best_tiles_come_in_order():
    features = torch.arange(6.0)[:, None]
    sequences, lengths = best_first(features, torch.tensor([1.0, 5, 3, 2, 0, 9]), torch.tensor([4, 2]), read=3)
    assert sequences.squeeze(2).tolist() == [[1, 2, 3], [5, 4, 0]]
    assert lengths.tolist() == [3, 2]


@pytest.mark.parametrize("top", [1, 2])
def test_tiles_learn_from_the_most_positive_of_each_bag(top):
    model = make_rnn_mil(top=top)
    bags = tiny_splits().bags.batch(torch.arange(4))
    losses = []
    for pixels, label in zip(bags.instances.split(bags.sizes.tolist()), bags.labels, strict=True):
        logits = model.tile_classifier(model.encoder(pixels))
        best = logits.softmax(1)[:, 1].topk(top).indices
        losses.append(F.cross_entropy(logits[best], label.expand(top)))
    torch.testing.assert_close(model.tile_loss(bags), torch.stack(losses).mean())


def test_each_phase_moves_exactly_its_parts():
    model = make_rnn_mil(norm=True)
    moved = []

    class Watch(RNNMIL):
        def training_step(self, bags, batch_idx):
            before = [copy.deepcopy(part.state_dict()) for part in self.parts()]
            super().training_step(bags, batch_idx)
            after = [part.state_dict() for part in self.parts()]
            same = [all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(before, after, strict=True)]
            moved.append((self.current_epoch, *(not one for one in same)))

    model.__class__ = Watch
    fit(model, TinyData(tiny_splits(), bags_per_step=4), epochs=2)
    assert {one[1:] for one in moved if one[0] == 0} == {(True, True, False)}
    assert {one[1:] for one in moved if one[0] == 1} == {(False, False, True)}


def test_the_rnn_says_nothing_before_it_has_learned_and_its_best_epoch_is_selected():
    model = make_rnn_mil(rnn_start_epoch=2)
    assert model.default_monitor == "val/rnn/bag_loss"
    assert not model.rnn_trained
    seen = []

    class Watch(RNNMIL):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            seen.append(self.tables["val"].roles)

    model.__class__ = Watch
    runner = fit(model, TinyData(tiny_splits()), epochs=3)
    assert seen == [["tile"], ["tile"], ["tile", "rnn"]]
    assert 0 < runner.callback_metrics["val/rnn/bag_loss"] < 10


def test_instance_labels_cannot_reach_the_weights():
    splits, states = tiny_splits(), []
    for change in (lambda y: y, lambda y: 1 - y):
        bags = copy.copy(splits.bags)
        object.__setattr__(bags, "instance_labels", change(splits.bags.instance_labels))
        model = make_rnn_mil()
        fit(model, TinyData(splits._replace(bags=bags)), epochs=3)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_tiles_are_found_from_bag_labels_alone():
    model = make_rnn_mil(rnn_start_epoch=15, optimizer=lambda p: torch.optim.AdamW(p, lr=0.01))
    runner = fit(model, TinyData(tiny_splits(bags=80)), epochs=20)
    metrics = runner.callback_metrics
    assert metrics["val/tile/instance_auroc"] > 0.75


def test_no_epoch_for_the_rnn_is_a_mistake():
    with pytest.raises(UserError, match=r"ends before the rnn phase begins.*method.rnn_start_epoch"):
        fit(make_rnn_mil(rnn_start_epoch=5), TinyData(tiny_splits()), epochs=5)
    with pytest.raises(UserError, match="at least 1"):
        make_rnn_mil(top=0)


def test_the_rnn_also_reads_each_tile_alone():
    model, splits = make_rnn_mil(), tiny_splits()
    fit(model, TinyData(splits), epochs=2)
    bags = splits.bags.batch(splits.test)
    with torch.no_grad():
        said = model.eval().predict_bags(bags)["rnn"]
        scores, [features] = said.readings(), model.encode(bags.instances)
        alone = torch.cat([model.rnn(row[None, None], torch.tensor([1])) for row in features]).double().softmax(1)
    torch.testing.assert_close(scores["bag_of_one"].sigmoid(), alone[:, 1])
    product = said.instance_probs * said.bag_probs[:, 1].repeat_interleave(bags.sizes)
    torch.testing.assert_close(scores["instance_x_bag"].exp(), product)


def test_a_tile_classifier_is_read_in_one_way():
    with pytest.raises(UserError, match="RNNMIL has one word on instances"):
        make_rnn_mil(instance_score="bag_of_one")
