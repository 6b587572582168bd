import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.abmil import ABMIL


def plain_abmil(model, bag):
    """Eq. 7-9, one instance at a time, on the weights of `model`."""
    attention, exponentials, hidden = model.attention, [], []
    for instance in bag:
        h = instance
        for layer in model.hidden:
            h = torch.clamp(layer.weight @ h + layer.bias, min=0) if hasattr(layer, "weight") else h
        gate = torch.ones(())
        if attention.sigmoid_branch is not None:
            gate = 1 / (1 + torch.exp(-(attention.sigmoid_branch.weight @ h + attention.sigmoid_branch.bias)))
        hidden_attention = torch.tanh(attention.tanh_branch.weight @ h + attention.tanh_branch.bias) * gate
        exponentials.append(torch.exp(attention.score.weight[0] @ hidden_attention + attention.score.bias[0]))
        hidden.append(h)
    weights = torch.stack(exponentials) / sum(exponentials)
    embedding = sum(weight * h for weight, h in zip(weights, hidden, strict=True))
    return model.classifier.weight @ embedding + model.classifier.bias, weights


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
def test_equals_the_equations(gated, hidden):
    torch.manual_seed(0)
    model = ABMIL(6, num_classes=3, hidden=hidden, attention_dim=4, gated=gated)
    features, sizes = torch.randn(12, 6), torch.tensor([7, 1, 4])
    output = model(features, sizes)
    logits, attention = zip(*(plain_abmil(model, bag) for bag in features.split(sizes.tolist())), strict=True)
    torch.testing.assert_close(output.bag_logits, torch.stack(logits))
    torch.testing.assert_close(output.attention, torch.cat(attention))


def test_released_teacher_drops_inputs_of_both_hidden_layers_while_training():
    torch.manual_seed(0)
    model = ABMIL(6, hidden=(8, 8), dropout=0.5, init="normal_0.01")
    features, sizes = torch.randn(5, 6), torch.tensor([5])
    assert not torch.equal(model(features, sizes).attention, model(features, sizes).attention)
    model.eval()
    assert torch.equal(model(features, sizes).attention, model(features, sizes).attention)


def test_wrong_settings():
    with pytest.raises(UserError, match=r"dropout=-0.1: a share, it must lie in \[0, 1\)"):
        ABMIL(6, dropout=-0.1)
