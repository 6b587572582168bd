"""The reference that may see instance labels: its steps by hand, and what it does without labels."""

import copy

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.methods.baselines.supervised import Supervised
from tests.support.tiny import TinyData, fit, tiny_head, tiny_parts, tiny_splits


def make_supervised(**settings):
    torch.manual_seed(0)
    return Supervised(**tiny_parts(norm=False) | {"student_head": tiny_head()} | settings)


def with_labels(splits, labels):
    bags = copy.copy(splits.bags)
    object.__setattr__(bags, "instance_labels", labels)
    return splits._replace(bags=bags)


def test_a_step_equals_cross_entropy_over_the_labelled_instances():
    """Unknown labels weigh nothing: the mean runs over the known ones."""
    splits = tiny_splits()
    labels = splits.bags.instance_labels.clone()
    labels[::3] = -1
    model = make_supervised()
    plain = copy.deepcopy(model)
    batches = []

    class Watch(Supervised):
        def training_step(self, instances, batch_idx):
            batches.append(instances)
            super().training_step(instances, batch_idx)

    model.__class__ = Watch
    fit(model, TinyData(with_labels(splits, labels)))
    parts = [plain.encoder, plain.student_head]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.02, momentum=0.9) for part in parts]
    for batch in batches:
        known = batch.instance_labels >= 0
        logits = plain.student_head(torch.relu(plain.encoder.linear(batch.instances[known])))
        picked = logits.log_softmax(1)[torch.arange(int(known.sum())), batch.instance_labels[known]]
        for optimizer in optimizers:
            optimizer.zero_grad()
        (-picked.mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_bag_is_as_positive_as_its_most_positive_instance():
    splits = tiny_splits()
    model = make_supervised().eval()
    bags = splits.bags.batch(splits.test)
    prediction = model.predict_bags(bags)["model"]
    for bag, probs in enumerate(prediction.instance_probs.split(bags.sizes.tolist())):
        assert prediction.bag_probs[bag, 1] == probs.max()
    torch.testing.assert_close(prediction.bag_probs.sum(1), torch.ones(len(bags.sizes), dtype=torch.float64))


def test_it_learns_what_the_labels_say():
    trainer = fit(make_supervised(), TinyData(tiny_splits(bags=120)), epochs=10)
    assert trainer.callback_metrics["val/model/instance_auroc"] > 0.95


def test_without_any_label_there_is_nothing_to_train_on():
    splits = tiny_splits()
    unknown = torch.full_like(splits.bags.instance_labels, -1)
    with pytest.raises(UserError, match="needs instance labels"):
        fit(make_supervised(), TinyData(with_labels(splits, unknown)))


def test_more_than_two_classes_are_refused():
    with pytest.raises(UserError, match="binary"):
        make_supervised(num_classes=3)
