"""torchmil's models as aggregators, and as an independent implementation of ours: weights copied, outputs equal."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.torchmil_adapter import TorchMIL
from kd_mil.models.aggregators.transmil import TransMIL

models = pytest.importorskip("torchmil.models")
WIDTH = 6
MODELS = ("ABMIL", "CLAM_SB", "DSMIL", "DTFDMIL", "IIBMIL", "TransMIL", "TransformerABMIL")


@pytest.fixture
def bags():
    torch.manual_seed(0)
    return torch.randn(40, WIDTH), torch.tensor([6, 25, 9])


def copy_linear(ours, theirs):
    theirs = getattr(theirs, "module", theirs)  # torchmil wraps layers whose input width may come later
    with torch.no_grad():
        ours.weight.copy_(theirs.weight)
        ours.bias.zero_() if theirs.bias is None else ours.bias.copy_(theirs.bias)


def copy_positive(ours, theirs):
    """Our two logits become (0, their one)."""
    theirs = getattr(theirs, "module", theirs)
    with torch.no_grad():
        ours.weight.zero_()
        ours.bias.zero_()
        ours.weight[1] = theirs.weight[0]
        ours.bias[1] = theirs.bias[0]


def copy_attention(ours, theirs):
    copy_linear(ours.tanh_branch, theirs.fc1)
    copy_linear(ours.score, theirs.fc2)
    if theirs.gated:
        copy_linear(ours.sigmoid_branch, theirs.fc_gated)


@pytest.mark.parametrize("gated", [False, True])
def test_abmil_equals_torchmil(bags, gated):
    """All three bags at once, theirs padded and masked: outputs, loss and gradient of the features."""
    features, sizes = bags[0].requires_grad_(), bags[1]
    torch.manual_seed(1)
    theirs = models.ABMIL((WIDTH,), att_dim=5, gated=gated, feat_ext=nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU()))
    ours = ABMIL(WIDTH, hidden=(8,), attention_dim=5, gated=gated)
    copy_linear(ours.hidden[0], theirs.feat_ext[0])
    copy_attention(ours.attention, theirs.pool)
    copy_positive(ours.classifier, theirs.classifier)
    padded = nn.utils.rnn.pad_sequence(list(features.split(sizes.tolist())), batch_first=True)
    mask = torch.arange(padded.shape[1]) < sizes[:, None]
    logits, attention = theirs(padded, mask, return_att=True)
    output = ours(features, sizes)
    torch.testing.assert_close(output.bag_logits[:, 1], logits)
    torch.testing.assert_close(output.attention_logits, attention[mask])
    labels = torch.tensor([1, 0, 1])
    losses = bag_loss(output.bag_logits, labels), F.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, features)[0] for loss in losses))


def test_clam_equals_torchmil(bags):
    """Theirs has one attention branch; compared bag by bag, for it looks for examples among padding, too."""
    torch.manual_seed(1)
    theirs = models.CLAM_SB((WIDTH,), att_dim=5, gated=True, k_sample=3, inst_loss_name="BCEWithLogitsLoss")
    ours = CLAM(WIDTH, hidden=(), attention_dim=5, dropout=0.0, clustered=3)
    copy_attention(ours.attention, theirs.pool)
    copy_positive(ours.classifier, theirs.classifier)
    output = ours(*bags)
    for number, bag in enumerate(bags[0].split(bags[1].tolist())):
        logit, attention = theirs(bag[None], return_att=True)
        torch.testing.assert_close(output.bag_logits[number, 1], logit[0])
        ours_of_bag = output.attention_logits.split(bags[1].tolist())[number]
        torch.testing.assert_close(ours_of_bag.softmax(0), attention[0].softmax(0))


def test_dsmil_equals_torchmil(bags):
    torch.manual_seed(1)
    theirs = models.DSMIL((WIDTH,), att_dim=5, nonlinear_q=True)
    ours = DSMIL(WIDTH, attention_dim=5)
    copy_positive(ours.scorer, theirs.inst_classifier)
    for place in (0, 2):
        copy_linear(ours.query[place], theirs.q_nn[place])
    with torch.no_grad():
        ours.classifier.weight.zero_()
        ours.classifier.weight[1, 1] = theirs.bag_classifier.weight[0]
        ours.classifier.bias.copy_(torch.tensor([0.0, theirs.bag_classifier.bias.item()]))
    output = ours(*bags)
    for number, bag in enumerate(bags[0].split(bags[1].tolist())):
        logit, attention, instances = theirs(bag[None], return_att=True, return_inst_pred=True)
        torch.testing.assert_close(output.bag_logits[number, 1], logit[0])
        torch.testing.assert_close(output.attention.split(bags[1].tolist())[number], attention[0, :, 0])
        torch.testing.assert_close(output.instance_logits.split(bags[1].tolist())[number][:, 1], instances[0])


def copy_nystrom(ours, theirs, width):
    """torchmil leaves out the output layer and the convolution of the values."""
    with torch.no_grad():
        for name, weight in zip(("query", "key", "value"), theirs.att_module.qkv_nn.weight.chunk(3), strict=True):
            getattr(ours, name).weight.copy_(weight)
        ours.residual.weight.zero_()
        ours.output[0].weight.copy_(torch.eye(width))
        ours.output[0].bias.zero_()


def test_transmil_equals_torchmil(bags):
    """With zero tokens in small bags (exact_small_bags=false) and what torchmil leaves out switched off.

    Their projection has no ReLU, which passes features that are not negative.
    """
    torch.manual_seed(1)
    width = 16
    theirs = models.TransMIL((width,), att_dim=width, n_heads=4, n_landmarks=8).eval()
    ours = TransMIL(width, width=width, heads=4, landmarks=8, dropout=0.0, exact_small_bags=False).eval()
    with torch.no_grad():
        ours.project[0].weight.copy_(torch.eye(width))
        ours.project[0].bias.zero_()
        ours.class_token.copy_(theirs.cls_token)
    for layer, norm, attention in (
        (theirs.layers[0], ours.first_norm, ours.first_attention),
        (theirs.layers[1], ours.last_norm, ours.last_attention),
    ):
        copy_linear(norm, layer.norm1)
        copy_nystrom(attention, layer, width)
    for ours_conv, theirs_conv in (("wide", "proj"), ("middle", "proj1"), ("narrow", "proj2")):
        copy_linear(getattr(ours.positions, ours_conv), getattr(theirs.pos_layer, theirs_conv))
    copy_linear(ours.norm, theirs.norm)
    copy_positive(ours.classifier, theirs.classifier)
    features, sizes = torch.rand(90, width), torch.tensor([30, 9, 51])
    output = ours(features, sizes)
    expected = torch.cat([theirs(bag[None]) for bag in features.split(sizes.tolist())])
    torch.testing.assert_close(output.bag_logits[:, 1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_adapter_gives_what_the_model_gives(bags, model):
    """Two logits whose cross-entropy is their loss, whatever their loss holds; attention sums to 1; gradients flow."""
    torch.manual_seed(1)
    adapter = TorchMIL(WIDTH, model=model, **({"att_dim": 8} if model in ("IIBMIL", "TransMIL") else {})).eval()
    output = adapter(*bags)
    totals = torch.stack([part.sum() for part in output.attention.split(bags[1].tolist())])
    torch.testing.assert_close(totals, torch.ones(3))
    output.bag_logits.sum().backward()
    if model == "DTFDMIL":  # deals its pseudo-bags anew at every call
        return
    labels = torch.tensor([1, 0, 1])
    loss = bag_loss(output.bag_logits, labels)
    loss = loss if output.auxiliary_loss is None else loss + output.auxiliary_loss(labels)
    parts = zip(bags[0].split(bags[1].tolist()), labels.split(1), strict=True)
    theirs = [sum(adapter.model.compute_loss(label, bag[None])[1].values()) for bag, label in parts]
    torch.testing.assert_close(loss, torch.stack(theirs).mean())


@pytest.mark.parametrize("model", MODELS)
def test_bags_of_one_go_through_a_model_together(bags, model):
    torch.manual_seed(1)
    adapter = TorchMIL(WIDTH, model=model, **({"att_dim": 8} if model in ("IIBMIL", "TransMIL") else {})).eval()
    with torch.no_grad():
        together = adapter(bags[0], torch.ones(40, dtype=torch.long))
        alone = [adapter(row[None], torch.tensor([1])) for row in bags[0]]
    torch.testing.assert_close(together.bag_logits, torch.cat([output.bag_logits for output in alone]))
    torch.testing.assert_close(together.attention, torch.ones(40))
    assert adapter.mixes_bags == (model == "TransMIL")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "SmABMIL"}, "needs X, adj"),
        ({"model": "ABMILL"}, "torchmil has"),
        ({"model": "ABMIL", "att_dims": 5}, "att_dims"),
        ({"num_classes": 3}, "binary"),
    ],
)
def test_mistakes_are_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        TorchMIL(WIDTH, **settings)


def test_trying_a_model_out_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    models.ABMIL((WIDTH,))
    expected = torch.rand(3)
    torch.manual_seed(3)
    TorchMIL(WIDTH)
    assert torch.equal(torch.rand(3), expected)
