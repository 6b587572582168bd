import math

import pytest
import torch
import torch.nn.functional as F

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.nystrom import NystromAttention, pseudo_inverse
from kd_mil.models.aggregators.transmil import PPEG, TransMIL, square_grid


def attention_layer(width, heads, landmarks, exact_small, pinv_iterations=6):
    torch.manual_seed(0)
    return NystromAttention(width, heads, landmarks, pinv_iterations, dropout=0.0, exact_small=exact_small).double()


def plain_nystrom(layer, tokens):
    """F A+ B V of one sequence (T, E), head by head, every matrix written out, with the pseudo-inverse of LAPACK."""
    count, landmarks, head_width = len(tokens), layer.landmarks, tokens.shape[1] // layer.heads
    padded = torch.cat([tokens.new_zeros(-count % landmarks, tokens.shape[1]), tokens])
    heads = []
    for head in range(layer.heads):
        rows = slice(head * head_width, (head + 1) * head_width)
        q, k, v = (padded @ linear.weight[rows].T for linear in (layer.query, layer.key, layer.value))
        q_mean, k_mean = (x.reshape(landmarks, -1, head_width).mean(1) for x in (q, k))
        f, a, b = (
            ((x @ y.T) / math.sqrt(head_width)).softmax(1) for x, y in ((q, k_mean), (q_mean, k_mean), (q_mean, k))
        )
        kernel = layer.residual.weight[head, 0, :, 0]
        reach = len(kernel) // 2
        around = F.pad(v, (0, 0, reach, reach))
        residual = torch.stack([kernel @ around[place : place + len(kernel)] for place in range(len(v))])
        heads.append(f @ torch.linalg.pinv(a) @ (b @ v) + residual)
    return layer.output(torch.cat(heads, 1)[-count:])


@pytest.mark.parametrize("count", [5, 8, 21, 40])
def test_nystrom_equals_its_equations(count):
    """Also where the tokens do not fill the landmarks: zeros in front take part, as in the code TransMIL uses."""
    layer = attention_layer(width=8, heads=2, landmarks=8, exact_small=False, pinv_iterations=40)
    tokens = 3 * torch.randn(2, count, 8, dtype=torch.float64)
    expected = torch.stack([plain_nystrom(layer, sequence) for sequence in tokens])
    torch.testing.assert_close(layer(tokens), expected, rtol=1e-5, atol=1e-6)


def test_nystrom_is_exact_attention_where_every_token_is_a_landmark():
    """A A+ A = A: with well-separated tokens six iterations of the pseudo-inverse reach it to 1e-9."""
    approximate = attention_layer(width=16, heads=1, landmarks=16, exact_small=False)
    exact = attention_layer(width=16, heads=1, landmarks=16, exact_small=True)
    for layer in (approximate, exact):
        layer.query.weight.data = layer.key.weight.data = torch.eye(16, dtype=torch.float64)
    tokens = 4 * torch.linalg.qr(torch.randn(3, 16, 16, dtype=torch.float64)).Q
    plain = (tokens @ tokens.transpose(1, 2) / 4).softmax(2) @ approximate.value(tokens)
    attended = approximate.approximate(tokens, tokens[:, None], approximate.value(tokens)[:, None]).squeeze(1)
    torch.testing.assert_close(attended, plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(approximate(tokens), exact(tokens), rtol=1e-9, atol=1e-9)


def test_pseudo_inverse_converges_to_lapack():
    matrices = (2 * torch.randn(2, 3, 12, 12, dtype=torch.float64)).softmax(3)
    torch.testing.assert_close(pseudo_inverse(matrices, 60), torch.linalg.pinv(matrices), rtol=1e-6, atol=1e-6)


def test_attention_of_the_first_tokens_alone_equals_theirs_among_all():
    for exact_small in (True, False):
        layer = attention_layer(width=8, heads=2, landmarks=32, exact_small=exact_small)
        tokens = torch.randn(2, 30, 8, dtype=torch.float64)
        torch.testing.assert_close(layer(tokens, count=3), layer(tokens)[:, :3])


def test_first_token_logits_are_the_mean_over_heads():
    layer = attention_layer(width=8, heads=2, landmarks=4, exact_small=True)
    tokens = torch.randn(1, 5, 8, dtype=torch.float64)
    query, keys = layer.query(tokens)[0, 0].view(2, 4), layer.key(tokens)[0].view(5, 2, 4)
    expected = torch.stack([(query[head] @ keys[:, head].T) / 2 for head in range(2)]).mean(0)
    torch.testing.assert_close(layer.first_token_logits(tokens)[0], expected)


def test_ppeg_is_the_sum_of_three_convolutions_and_the_identity():
    torch.manual_seed(0)
    layer, tokens = PPEG(4).double(), torch.randn(2, 1 + 25, 4, dtype=torch.float64)
    grid = tokens[:, 1:].transpose(1, 2).reshape(2, 4, 5, 5)
    expected = grid + layer.wide(grid) + layer.middle(grid) + layer.narrow(grid)
    encoded = layer(tokens, side=5)
    torch.testing.assert_close(encoded[:, 1:], expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(encoded[:, 0], tokens[:, 0])


def test_ppeg_gradients_do_not_share_memory():
    """Gradients that alias each other would be clipped and accumulated several times over."""
    layer = PPEG(4)
    layer(torch.randn(1, 5, 4), side=2).sum().backward()
    addresses = [parameter.grad.data_ptr() for parameter in layer.parameters()]
    assert len(set(addresses)) == len(addresses)


def test_grid_repeats_the_first_instances():
    places, real = square_grid(torch.tensor([4, 6, 9]), torch.tensor([1, 2]), side=3)
    assert places.tolist() == [[4, 5, 6, 7, 8, 9, 4, 5, 6], [10, 11, 12, 13, 14, 15, 16, 17, 18]]
    assert real.sum(1).tolist() == [6, 9]


def plain_transmil(model, bag):
    """One bag through the network as the paper's Alg. 1 and 2 write it."""
    tokens = F.relu(model.project[0](bag))
    side = math.ceil(math.sqrt(len(bag)))
    tokens = torch.cat([model.class_token[0], tokens, tokens[: side * side - len(bag)]])
    tokens = tokens + plain_nystrom(model.first_attention, model.first_norm(tokens))
    grid = tokens[1:].T.reshape(1, -1, side, side)
    grid = grid + sum(conv(grid) for conv in (model.positions.wide, model.positions.middle, model.positions.narrow))
    tokens = torch.cat([tokens[:1], grid.flatten(2)[0].T])
    tokens = tokens + plain_nystrom(model.last_attention, model.last_norm(tokens))
    return model.classifier(model.norm(tokens[0]))


def test_equals_a_plain_implementation():
    torch.manual_seed(0)
    options = {"width": 16, "heads": 2, "landmarks": 8, "pinv_iterations": 40, "exact_small_bags": False}
    model = TransMIL(6, num_classes=3, **options).double().eval()
    features, sizes = torch.randn(48, 6, dtype=torch.float64), torch.tensor([1, 5, 20, 2, 20])
    expected = torch.stack([plain_transmil(model, bag) for bag in features.split(sizes.tolist())])
    torch.testing.assert_close(model(features, sizes).bag_logits, expected, rtol=1e-4, atol=1e-5)


def test_has_the_size_of_the_reference():
    assert sum(parameter.numel() for parameter in TransMIL(1024).parameters()) == 2_672_146


def test_wrong_settings():
    with pytest.raises(UserError, match=r"aggregator.width=10 is not divisible by aggregator.heads=4"):
        TransMIL(6, width=10, heads=4)


@pytest.mark.slow
def test_full_size_takes_a_bag_of_fifty_thousand():
    with torch.no_grad():
        output = TransMIL(1024).eval()(torch.randn(50_000, 1024), torch.tensor([50_000]))
    assert output.bag_logits.isfinite().all()
    assert output.attention.sum().item() == pytest.approx(1, abs=1e-5)
