import math

import pytest
import torch
import torch.nn.functional as F

from kd_mil.models.aggregators.dsmil import DSMIL


def test_by_hand():
    """Two instances, everything an identity: critical instances, both attentions and both bag logits on paper."""
    model = DSMIL(2, attention_dim=2, query="linear", value="identity")
    for layer in (model.scorer, model.query):
        layer.weight.data, layer.bias.data = torch.eye(2), torch.zeros(2)
    model.classifier.weight.data = torch.tensor([[[1.0, 1], [0, 0]], [[0, 0], [1, 2]]])
    model.classifier.bias.data.zero_()
    output = model(torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([2]))

    # class 0: critical (1, 0), logits (1, 0) / sqrt(2); class 1: critical (0, 2), logits (0, 4) / sqrt(2)
    negative = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    positive = 1 / (1 + math.exp(-4 / math.sqrt(2)))
    assert output.instance_logits.tolist() == [[1, 0], [0, 2]]
    assert output.attention_logits.tolist() == pytest.approx([0, 4 / math.sqrt(2)])
    assert output.attention.tolist() == pytest.approx([1 - positive, positive])
    assert output.embedding[0].tolist() == pytest.approx([negative, 2 * (1 - negative), 1 - positive, 2 * positive])
    assert output.bag_logits[0].tolist() == pytest.approx([2 - negative, 1 + 3 * positive])


def plain_dsmil(model, bag, value):
    """The two streams of one bag as the paper draws them: every query and every value written out."""
    hidden = model.hidden(bag)
    scores, queries = model.scorer(hidden), model.query(hidden)
    values = {"identity": hidden, "linear": model.value(hidden), "relu": F.relu(model.value(hidden))}[value]
    embedding, logits = [], []
    for scores_of_class in scores.T:
        critical = max(range(len(bag)), key=lambda index, s=scores_of_class: s[index].item())
        logits.append(torch.stack([query @ queries[critical] for query in queries]) / math.sqrt(queries.shape[1]))
        weights = logits[-1].exp() / logits[-1].exp().sum()
        embedding.append(sum(weight * row for weight, row in zip(weights, values, strict=True)))
    embedding = torch.stack(embedding)
    bag_logits = torch.stack([(kernel * embedding).sum() for kernel in model.classifier.weight]) + model.classifier.bias
    return bag_logits, torch.stack(logits, 1), embedding.flatten(), scores


@pytest.mark.parametrize("query", ["linear", "mlp"])
@pytest.mark.parametrize("value", ["identity", "relu", "linear"])
@pytest.mark.parametrize("classes", [2, 3])
def test_equals_a_plain_implementation(query, value, classes):
    torch.manual_seed(0)
    model = DSMIL(6, classes, hidden=(7,), attention_dim=5, query=query, value=value)
    features, sizes = torch.randn(40, 6), torch.tensor([30, 1, 9])
    output = model(features, sizes)
    bags = zip(*(plain_dsmil(model, bag, value) for bag in features.split(sizes.tolist())), strict=True)
    bag_logits, attention_logits, embedding, scores = bags
    torch.testing.assert_close(output.bag_logits, torch.stack(bag_logits))
    torch.testing.assert_close(output.class_attention_logits, torch.cat(attention_logits))
    strongest = torch.cat(attention_logits)[:, 1:].max(1).values
    torch.testing.assert_close(output.attention_logits, strongest)
    torch.testing.assert_close(output.embedding, torch.stack(embedding))
    torch.testing.assert_close(output.instance_logits, torch.cat(scores))
    expected = torch.autograd.grad(torch.stack(bag_logits).square().sum(), list(model.parameters()), allow_unused=True)
    gradients = torch.autograd.grad(output.bag_logits.square().sum(), list(model.parameters()), allow_unused=True)
    for (name, _), gradient, other in zip(model.named_parameters(), gradients, expected, strict=True):
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_bag_stream_leaves_the_instance_scorer_alone():
    """Only the instance stream's own loss trains the scorer: choosing the critical instance has no gradient."""
    model = DSMIL(4)
    model(torch.randn(6, 4), torch.tensor([6])).bag_logits.sum().backward()
    assert model.scorer.weight.grad is None
