"""Aggregators beside the originals: equal weights, the same bags, outputs and gradients.

Ours sees all bags packed, the original one after the other.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from checkouts import checkout
from torch import Tensor, nn

from kd_mil.methods.base.bag_method import aggregator_loss
from kd_mil.models.aggregators.acmil import ACMIL
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.dtfd import DTFD
from kd_mil.models.aggregators.transmil import TransMIL

WIDTH = 64
"""Of the features, where the original lets one choose; TransMIL's is 1024."""
Outputs = dict[str, Tensor]


class Pair(NamedTuple):
    """Two implementations of one aggregator."""

    ours: nn.Module
    theirs: nn.Module
    same: Sequence[tuple[Tensor, Sequence[Tensor]]]
    """Our parameters, and theirs of the same values, one after the other."""
    ask_theirs: Callable[[Tensor, Tensor], Outputs]
    """What the original says of a bag (N, D) with its label (1,): outputs (1, ...) or (N, ...), or a loss (1,)."""
    ask_ours: Callable[[Any, Tensor, Tensor], Outputs]
    """The same of our packed output, bag labels (B,) and sizes (B,)."""
    width: int = WIDTH
    sizes: tuple[int, ...] = (20, 47, 90)


def attention_layers(gated: nn.Module, of: Sequence[nn.Module]) -> list[tuple[Tensor, list[Tensor]]]:
    """Our gated attention network, and the original's linear layers: tanh, sigmoid, score."""
    layers = (gated.tanh_branch, gated.sigmoid_branch, gated.score)
    return [pair for ours, theirs in zip(layers, of, strict=True) for pair in linear(ours, theirs)]


def linear(ours: nn.Module, *theirs: nn.Module) -> list[tuple[Tensor, list[Tensor]]]:
    """Weight and bias of our layer, and of theirs, stacked where there are several."""
    return [(ours.weight, [layer.weight for layer in theirs]), (ours.bias, [layer.bias for layer in theirs])]


def clam(folder: str, branches: str) -> Pair:
    """CLAM-SB (`single`) or CLAM-MB (`multi`), with the instance loss."""
    with checkout(folder) as module:
        kind = {"single": "CLAM_SB", "multi": "CLAM_MB"}[branches]
        theirs = getattr(module("models.model_clam"), kind)(embed_dim=WIDTH)
    ours = CLAM(WIDTH, branches=branches, dropout=0.0)
    hidden, _, _, gated = theirs.attention_net
    classifiers = theirs.classifiers if branches == "multi" else [theirs.classifiers]
    same = linear(ours.hidden[0][0], hidden)
    same += attention_layers(ours.attention, [gated.attention_a[0], gated.attention_b[0], gated.attention_c])
    same += linear(ours.classifier, *classifiers)
    for one, other in zip(ours.instance_classifiers, theirs.instance_classifiers, strict=True):
        same += linear(one, other)

    def ask_theirs(bag: Tensor, label: Tensor) -> Outputs:
        logits, _, _, attention, found = theirs(bag, label=label, instance_eval=True)
        loss = 0.7 * F.cross_entropy(logits, label) + 0.3 * found["instance_loss"]
        return {"bag logits": logits, "attention logits": attention[-1], "loss": loss[None] / 0.7}

    def ask_ours(output: Any, labels: Tensor, sizes: Tensor) -> Outputs:
        loss = aggregator_loss(output, labels, sizes, 0.5)
        return {"bag logits": output.bag_logits, "attention logits": output.attention_logits, "loss": loss}

    return Pair(ours, theirs, same, ask_theirs, ask_ours)


def dsmil(folder: str) -> Pair:
    """DSMIL with two classes, both streams."""
    with checkout(folder) as module:
        net = module("dsmil")
        theirs = net.MILNet(net.IClassifier(nn.Identity(), WIDTH, 2), net.BClassifier(WIDTH, 2))
    ours = DSMIL(WIDTH)
    bag = theirs.b_classifier
    same = linear(ours.scorer, theirs.i_classifier.fc) + linear(ours.classifier, bag.fcc)
    same += linear(ours.query[0], bag.q[0]) + linear(ours.query[2], bag.q[2])

    def ask_theirs(instances: Tensor, label: Tensor) -> Outputs:
        scores, logits, attention, _ = theirs(instances)
        return {"bag logits": logits, "instance logits": scores, "attention": attention[:, 1]}

    def ask_ours(output: Any, labels: Tensor, sizes: Tensor) -> Outputs:
        found = {"bag logits": output.bag_logits, "instance logits": output.instance_logits}
        return found | {"attention": output.attention}

    return Pair(ours, theirs, same, ask_theirs, ask_ours)


def dtfd(folder: str) -> Pair:
    """DTFD-MIL, distilling embeddings (AFS): the original's modules, dealt as ours deals in evaluation."""
    with checkout(folder) as module:
        attention, network = module("Model.Attention"), module("Model.network")
        reduce, first = network.DimReduction(WIDTH, 32), attention.Attention_Gated(32, 128)
        classifier, second = network.Classifier_1fc(32, 2), attention.Attention_with_Classifier(32, 128)
    theirs = nn.ModuleList([reduce, first, classifier, second])
    ours = DTFD(WIDTH, hidden=(32,))
    nn.init.zeros_(ours.hidden[0].bias)
    same: list[tuple[Tensor, Sequence[Tensor]]] = [(ours.hidden[0].weight, [reduce.fc1.weight])]
    for mine, theirs_of in ((ours.first_attention, first), (ours.second_attention, second.attention)):
        layers = [theirs_of.attention_V[0], theirs_of.attention_U[0], theirs_of.attention_weights]
        same += attention_layers(mine, layers)
    same += linear(ours.first_classifier, classifier.fc) + linear(ours.classifier, second.classifier.fc)

    def ask_theirs(bag: Tensor, label: Tensor) -> Outputs:
        hidden = [reduce(bag[number::4]) for number in range(4)]
        pooled = torch.cat([first(part) @ part for part in hidden])
        loss = F.cross_entropy(classifier(pooled), label.expand(4))
        logits = second(pooled)
        return {"bag logits": logits, "loss": (loss + F.cross_entropy(logits, label))[None]}

    def ask_ours(output: Any, labels: Tensor, sizes: Tensor) -> Outputs:
        return {"bag logits": output.bag_logits, "loss": aggregator_loss(output, labels, sizes, 0.5)}

    return Pair(ours, theirs, same, ask_theirs, ask_ours)


def acmil(folder: str) -> Pair:
    """ACMIL with gated attention of five branches, without masks, and its three losses."""
    with checkout(folder) as module:
        settings = type("Settings", (), {"D_feat": WIDTH, "D_inner": 32, "n_class": 2, "n_token": 5})
        theirs = module("architecture.transformer").ACMIL_GA(settings, n_token=5)
    ours = ACMIL(WIDTH, hidden=(32,))
    nn.init.zeros_(ours.hidden[0].bias)
    gated = theirs.attention
    same = [(ours.hidden[0].weight, [theirs.dimreduction.fc1.weight])]
    same += attention_layers(ours.attention, [gated.attention_V[0], gated.attention_U[0], gated.attention_weights])
    same += linear(ours.classifier, theirs.Slide_classifier.fc)
    for one, other in zip(ours.branch_classifiers, theirs.classifier, strict=True):
        same += linear(one, other.fc)

    def ask_theirs(bag: Tensor, label: Tensor) -> Outputs:
        branches, logits, attention = theirs(bag[None])
        attention = attention.softmax(-1)
        pairs = [F.cosine_similarity(attention[:, i], attention[:, j]).mean() for i, j in combinations(range(5), 2)]
        loss = F.cross_entropy(branches, label.expand(5)) + F.cross_entropy(logits, label) + torch.stack(pairs).mean()
        return {"bag logits": logits, "attention": attention[0].mean(0), "loss": loss[None]}

    def ask_ours(output: Any, labels: Tensor, sizes: Tensor) -> Outputs:
        loss = aggregator_loss(output, labels, sizes, 0.5)
        return {"bag logits": output.bag_logits, "attention": output.attention, "loss": loss}

    return Pair(ours, theirs, same, ask_theirs, ask_ours)


def transmil(folder: str) -> Pair:
    """TransMIL of the released size; small bags are padded as the original does."""
    with checkout(folder, "models.model_interface") as module:
        theirs = module("models.TransMIL").TransMIL(2)
    ours = TransMIL(1024, exact_small_bags=False)
    same: list[tuple[Tensor, Sequence[Tensor]]] = [(ours.class_token, [theirs.cls_token])]
    same += linear(ours.project[0], theirs._fc1[0]) + linear(ours.norm, theirs.norm)
    same += linear(ours.classifier, theirs._fc2)
    for name in ("first", "last"):
        layer = {"first": theirs.layer1, "last": theirs.layer2}[name]
        attention = getattr(ours, f"{name}_attention")
        same += linear(getattr(ours, f"{name}_norm"), layer.norm) + linear(attention.output[0], layer.attn.to_out[0])
        same.append((attention.residual.weight, [layer.attn.res_conv.weight]))
        parts = layer.attn.to_qkv.weight.chunk(3)
        queries = zip((attention.query, attention.key, attention.value), parts, strict=True)
        same += [(one.weight, [part]) for one, part in queries]
    for mine, theirs_of in (("wide", "proj"), ("middle", "proj1"), ("narrow", "proj2")):
        same += linear(getattr(ours.positions, mine), getattr(theirs.pos_layer, theirs_of))

    def ask_theirs(bag: Tensor, label: Tensor) -> Outputs:
        with patch.object(Tensor, "cuda", lambda tensor: tensor):  # its class token goes there unasked
            return {"bag logits": theirs(data=bag[None])["logits"]}

    def ask_ours(output: Any, labels: Tensor, sizes: Tensor) -> Outputs:
        return {"bag logits": output.bag_logits}

    return Pair(ours, theirs, same, ask_theirs, ask_ours, width=1024, sizes=(300, 420, 77))


def differences(pair: Pair, seed: int = 0) -> dict[str, float]:
    """Largest differences of outputs, of the gradient of the bags and of weights, in units of the largest value."""
    generator = torch.Generator().manual_seed(seed)
    for mine, theirs in pair.same:
        mine.data.copy_(torch.cat([part.data for part in theirs]).view_as(mine))
    pair.ours.eval()
    pair.theirs.eval()
    bags = [torch.randn(size, pair.width, generator=generator) for size in pair.sizes]
    labels, sizes = torch.arange(len(bags)) % 2, torch.tensor(pair.sizes)
    packed = torch.cat(bags).requires_grad_()
    alone = [bag.clone().requires_grad_() for bag in bags]
    ours = pair.ask_ours(pair.ours(packed, sizes), labels, sizes)
    of_bags = [pair.ask_theirs(bag, label[None]) for bag, label in zip(alone, labels, strict=True)]
    theirs = {name: torch.cat([found[name] for found in of_bags]) for name in of_bags[0]}
    if "loss" in theirs:
        theirs["loss"] = theirs["loss"].mean()
    probes = {name: torch.randn(values.shape, generator=generator) for name, values in theirs.items()}
    weights = [mine for mine, _ in pair.same]
    inside = [whole(part) for _, parts in pair.same for part in parts]
    gradients = torch.autograd.grad(probed(ours, probes), [packed, *weights], materialize_grads=True)
    others = list(torch.autograd.grad(probed(theirs, probes), [*alone, *inside], materialize_grads=True))
    of_input, of_weights = torch.cat(others[: len(alone)]), others[len(alone) :]
    stacked = [torch.cat([piece(of_weights.pop(0), part).flatten() for part in parts]) for _, parts in pair.same]
    found = {name: relative(ours[name], theirs[name]) for name in theirs}
    found["gradient of the bags"] = relative(gradients[0], of_input)
    mine = torch.cat([gradient.flatten() for gradient in gradients[1:]])
    return found | {"gradient of the weights": relative(mine, torch.cat(stacked))}


def whole(weight: Tensor) -> Tensor:
    """The parameter that a weight is, or is a piece of."""
    return weight if weight._base is None else weight._base


def piece(gradient: Tensor, weight: Tensor) -> Tensor:
    """What belongs to a weight in the gradient of the whole."""
    return gradient.as_strided(weight.shape, weight.stride(), weight.storage_offset())


def probed(outputs: Outputs, probes: Outputs) -> Tensor:
    """A number that all outputs are part of."""
    return torch.stack([(outputs[name] * probe).sum() for name, probe in probes.items()]).sum()


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, in units of the original's largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
