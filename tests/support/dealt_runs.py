"""Small runs of every method that ranks are to repeat: what one process computes, R ranks must compute.

`python -m tests.campaign.ranks` goes through all of them on 1 to 4 ranks, `tests/test_ddp.py` through some on 3.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.tiles.taught_slides import Taught
from kd_mil.methods.base.accumulation import gather_steps
from kd_mil.methods.base.bag_targets import learn_from
from kd_mil.methods.baselines.cam import CAM
from kd_mil.methods.baselines.mhim import MHIM
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.oaa import OAA
from kd_mil.methods.baselines.oeem import OEEM
from kd_mil.methods.baselines.rnn_mil import RNNMIL
from kd_mil.methods.baselines.supervised import Supervised
from kd_mil.methods.baselines.unet_supervised import UNetSupervised
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel
from kd_mil.methods.distill_to_label.vat import VAT
from kd_mil.methods.distill_to_label.weights import Distillation
from kd_mil.methods.ins.ins import INS
from kd_mil.methods.resolution.low_magnification import LowMagnification
from kd_mil.methods.resolution.pair_augment import PairAugment
from kd_mil.methods.resolution.pair_loss import PairLoss
from kd_mil.methods.resolution.resolution import ResolutionDistillation
from kd_mil.methods.sela_mil.sela_mil import SeLaMIL
from kd_mil.methods.weno.correction import LabelCorrection
from kd_mil.methods.weno.feedback import StudentFeedback
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.multiclass import MultiClassWENO
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.dtfd import DTFD
from kd_mil.models.encoders.conv_stack import ConvStack
from kd_mil.models.encoders.small import FeatureProjector, SmallCNN
from kd_mil.models.heads import InstanceHead
from kd_mil.models.preprocess import Preprocess
from kd_mil.models.resnet_gn import ResNetGN
from kd_mil.models.segmenters.unet import UNet
from kd_mil.models.segmenters.vgg import VggMIL
from kd_mil.training.early_stopping import StopEarly
from tests.support.methods import checkpointing
from tests.support.tiny import TinyData, fit, tiny_abmil, tiny_head, tiny_parts, tiny_splits
from tests.support.tiny_images import image_parts, tiny_glands, tiny_ifkd
from tests.support.tiny_pairs import TinyPairs

MINED = HardPositiveMining(mode="threshold", threshold=0.5, start_epoch=1)
WENO_PARTS: dict[str, Any] = {"student_head": tiny_head(), "aggregator": tiny_abmil(), "hpm": MINED}
SIDE = 12
SLOW = partial(torch.optim.SGD, lr=0.002, momentum=0.9)


def picture_splits(classes: int = 2) -> BagSplits:
    """The bags of `tiny_splits`, with images of noise in place of features."""
    splits = tiny_splits(seed=1, classes=classes, smallest=1)
    bags, generator = splits.bags, torch.Generator().manual_seed(0)
    images = torch.randint(60, 200, (len(bags.instances), 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    images[bags.instance_labels > 0, 0] += 50
    return splits._replace(
        bags=Bags(images, bags.sizes, bags.labels, bags.bag_ids, bags.instance_labels, class_names=bags.class_names)
    )


def picture_parts(**encoder: Any) -> dict[str, Any]:
    """Parts of a method on those images, with all that is random or looks at a whole batch."""
    return tiny_parts() | {
        "instance_shape": (3, SIDE, SIDE),
        "encoder": partial(SmallCNN, channels=(8, 8), hidden=6, norm="batch"),
        "preprocess": Preprocess(standardise=True, augment=True, stain_jitter=0.05),
        "optimizer": SLOW,  # at .02 no feature of several runs is alive in the end
    }


PROJECTED = tiny_parts() | {"encoder": partial(FeatureProjector, out_features=8, relu=True)}
"""Parts on features, with BatchNorm that a bag of one instance does not break."""
CONVOLUTIONS = partial(ConvStack, convolutions=((6, 3, 1),), fully_connected=(8, 8), dropout=0.2)
DISTILLING = {"aggregator": tiny_abmil(gated=True), "kd": Distillation(), "teacher_epochs": 1, "student_epochs": 1}
METHODS: dict[str, Any] = {
    "weno": partial(WENO, **tiny_parts(norm=False) | WENO_PARTS),
    "weno_norm": partial(WENO, **PROJECTED | WENO_PARTS, gradient_clip=0.5),
    "weno_pixels": partial(WENO, **picture_parts() | WENO_PARTS | {"aggregator": tiny_abmil(hidden=(6,), dropout=0.2)}),
    "weno_two_encoders": partial(WENO, **picture_parts() | WENO_PARTS, shared_encoder=False, normalisation="bag"),
    "weno_recompute": partial(
        WENO,
        **PROJECTED | WENO_PARTS | {"aggregator": tiny_abmil(hidden=(6,), dropout=0.2)},
        attention_from="recompute",
    ),
    "weno_dsmil": partial(
        WENO, **PROJECTED | WENO_PARTS | {"aggregator": partial(DSMIL, hidden=(6,))}, attention_source="instance"
    ),
    "weno_transport": partial(WENO, **PROJECTED | WENO_PARTS, pseudo_labels="transport", average=0.9),
    "dmkd_style": partial(
        WENO,
        **PROJECTED | WENO_PARTS,
        correction=LabelCorrection(weight=0.5),
        feedback=StudentFeedback(weight=1.0, low=0.5, high=0.51),
    ),
    "weno_multiclass": partial(
        MultiClassWENO,
        **PROJECTED
        | WENO_PARTS
        | {"num_classes": 3, "aggregator": partial(CLAM, branches="multi")}
        | {"optimizer": SLOW},  # at .02 the loss leaps
    ),
    "mil": partial(MIL, **picture_parts(), aggregator=tiny_abmil(), as_many_updates_as_weno=True),
    "mil_dtfd": partial(MIL, **PROJECTED, aggregator=partial(DTFD, hidden=(6,), attention_dim=4)),
    "mhim": partial(MHIM, **picture_parts(), aggregator=tiny_abmil(), mask_ratio=0.3, momentum=0.9),
    "rnn_mil": partial(RNNMIL, **picture_parts(), student_head=tiny_head(), top=2, read=3, state=5, rnn_start_epoch=1),
    "d2l": partial(
        DistillToLabel, **picture_parts() | {"encoder": CONVOLUTIONS} | DISTILLING, vat=VAT(mode="adversarial")
    ),
    "d2l_norm": partial(
        DistillToLabel,
        **picture_parts() | DISTILLING | {"kd": Distillation(negative_bags="zero")},
        vat=VAT(norm="l2", subsets=2),
    ),
    "sela_mil": partial(SeLaMIL, **picture_parts(), student_head=tiny_head()),
    "ins": partial(INS, **picture_parts(), student_head=tiny_head(), projection=6, queue=24, warm_up=1),
    "ins_features": partial(INS, **PROJECTED, student_head=tiny_head(), projection=6, queue=24, warm_up=1),
    "low_magnification": partial(
        LowMagnification, **picture_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), seed=1
    ),
    "supervised": partial(Supervised, **picture_parts(), student_head=partial(InstanceHead, hidden=(7,), dropout=0.3)),
}
"""Methods on bags: features where parts are `PROJECTED`, images where they are of pictures."""


class EvenVgg(VggMIL):
    """VGG-MIL that takes means where it takes maxima: ranks choose different ones of two that round alike."""

    def __init__(self, instance_shape: Sequence[int]) -> None:
        super().__init__(instance_shape, widths=(4, 6, 8))
        self.pool = nn.AvgPool2d(2)


EVEN: dict[str, Any] = {"segmenter": EvenVgg, "optimizer": partial(torch.optim.SGD, lr=0.02, momentum=0.9)}
"""Adam would make whole steps of the rounding errors that are the gradient of a bias in front of BatchNorm."""
TURNED = {"preprocess": Preprocess(standardise=True, augment=True)} | EVEN
IMAGE_METHODS: dict[str, Any] = {
    "ifkd": partial(
        tiny_ifkd, teacher_epochs=1, paste=0.7, switch={"first": 1, "period": 1, "rule": "periodic"}, **TURNED
    ),
    "cam": lambda: CAM(**image_parts(**TURNED)),
    "oeem_style": lambda: OEEM(**image_parts(teacher_epochs=1, **TURNED)),
    "oaa_style": lambda: OAA(**image_parts(teacher_epochs=1, **EVEN), augment=True),
    "unet_supervised": lambda: UNetSupervised(
        **image_parts(segmenter=partial(UNet, name="resnet10t", stages=(0, 1, 2, 3)), optimizer=SLOW), augment=True
    ),
}
THREE_BAGS = ("weno_norm", "weno_pixels", "weno_recompute", "mhim")
IMBALANCED = "weno_imbalanced"
"""A quarter of the training bags is positive; drawn as often as the others, weighed, smoothed, five to an update, and
stopped early."""
RUNS = (*METHODS, IMBALANCED, *(f"{name}_3_bags" for name in THREE_BAGS), *IMAGE_METHODS, "resolution_kd")


def build(name: str) -> tuple[Any, Any, int]:
    """Method and data of a run, made anew, and its epochs."""
    torch.manual_seed(0)
    plain, bags_per_step = name.removesuffix("_3_bags"), 3 if name.endswith("_3_bags") else 1
    if plain in IMAGE_METHODS:
        return IMAGE_METHODS[plain](), tiny_glands(train=10, batch=3), 3 if plain == "ifkd" else 2
    if plain == "resolution_kd":
        data = TinyPairs(24, distil_on="both", auxiliary_fraction=0.3, images_per_step=5)
        data.setup()
        lengths = {"teacher_epochs": 1, "student_epochs": 1, "finetune_epochs": 1}
        parts: dict[str, Any] = {"network": partial(ResNetGN, stem="small", width=8, groups=4), "loss": PairLoss()}
        step = partial(torch.optim.SGD, lr=0.05)
        method = ResolutionDistillation(**data.model_inputs, **lengths, **parts, augment=PairAugment(), optimizer=step)
        method.model_card = {"model_inputs": data.model_inputs}
        return method, data, 3
    if plain == IMBALANCED:
        return imbalanced()
    method = METHODS[plain]()
    classes, pictures = method.num_classes, len(METHODS[plain].keywords["instance_shape"]) == 3
    splits = picture_splits(classes) if pictures else tiny_splits(seed=1, classes=classes, smallest=1)
    data = TinyData(splits, bags_per_step=bags_per_step, instances_per_step=8)
    data.taught = taught(splits.bags)  # type: ignore[attr-defined]
    return method, data, 2


def imbalanced() -> tuple[WENO, TinyData, int]:
    """All that training on a real cohort asks for, at once."""
    splits = tiny_splits(seed=1, smallest=1)
    labels = splits.bags.labels.clone()
    labels[splits.train[6:]] = 0
    splits = splits._replace(bags=dataclasses.replace(splits.bags, labels=labels))
    method = WENO(**PROJECTED | WENO_PARTS)
    learn_from(method, labels[splits.train], "balanced", 0.1)
    gather_steps(method, 5)
    return method, TinyData(splits, instances_per_step=8, balanced_bags=True), 8


def taught(bags: Bags) -> Taught:
    """A teacher's word on two thirds of the instances, for the method that learns from one."""
    generator = torch.Generator().manual_seed(5)
    probs = torch.rand(len(bags.instance_labels), 2, generator=generator).softmax(1)
    probs[::3] = math.nan
    return Taught(probs, 1 / bags.sizes[bags.bag_of_instance].float())


def train(name: str, ranks: int = 1, keep: Path | None = None, start: Path | None = None) -> dict[str, Any]:
    """Losses of each step, weights, buffers and scores of a run, in this process, one of `ranks`.

    Args:
        name: of `RUNS`.
        ranks: processes that are in one group, or will be.
        keep: where the checkpoint of every epoch goes.
        start: a checkpoint to resume from.
    """
    from lightning.pytorch.strategies import DDPStrategy

    method, data, epochs = build(name)
    losses, log_loss = [], method.log_loss

    def note(role: str, loss: torch.Tensor, batch_size: int, **terms: torch.Tensor) -> None:
        losses.append(float(loss))
        log_loss(role, loss, batch_size, **terms)

    method.log_loss = note
    settings = {} if keep is None else checkpointing(keep)
    if name == IMBALANCED:
        settings["callbacks"] = [*settings.get("callbacks", []), StopEarly(2, "val/teacher/bag_loss", "min")]
    if ranks > 1:
        options: dict[str, Any] = {"process_group_backend": "gloo", "timeout": timedelta(seconds=60)}
        settings["strategy"] = DDPStrategy(find_unused_parameters=True, **options)
    trainer = fit(method, data, epochs=epochs, start=start, devices=ranks, **settings)
    shown = ("val/", "loss/", "terms/")
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(shown)}
    return {"losses": losses, "state": method.state_dict(), "metrics": metrics, "epochs": trainer.current_epoch}


def join(rank: int, port: int, ranks: int) -> None:
    """Say to Lightning where this process stands among the ranks."""
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= place | {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}


def train_rank(rank: int, port: int, ranks: int, names: list[str], folder: str, start: str | None = None) -> None:
    """One of some ranks, which go through runs one after the other; leaves what they were in a file."""
    join(rank, port, ranks)
    given = None if start is None else Path(start)
    found = {name: train(name, ranks, None if given else Path(folder) / name, given) for name in names}
    torch.save(found, Path(folder) / f"rank{rank}.pt")


CHOSEN = ("bag_thresholds", "instance_thresholds", "operating_points", "operating.temperatures")
"""Chosen among scores, where 1e-7 may choose the next one, or by a search with a tolerance."""
CHOICES = ("tuned", "threshold", "temperature", "tempered", "blur")
"""In names of metrics that follow such a choice."""


def apart(a: float, b: float) -> float:
    """Their difference, relative where they are larger than 1."""
    return abs(a - b) / max(1.0, abs(a))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Largest differences of two runs: of losses and metrics (relative above 1), of weights relative to their norm."""
    last = -len(other["losses"])  # of a run that resumed, the steps since then
    steps = [apart(a, b) for a, b in zip(one["losses"][last:], other["losses"], strict=True)]
    weights = [0.0]
    for key, value in one["state"].items():
        if key.endswith(CHOSEN) or not isinstance(value, torch.Tensor):
            continue
        a, b = value.double().nan_to_num(-1.0, 1e9, -1e9), other["state"][key].double().nan_to_num(-1.0, 1e9, -1e9)
        weights.append(float((a - b).norm() / a.norm().clamp_min(1e-3)))
    keys = [key for key in one["metrics"] if not any(word in key for word in CHOICES)]
    keys = [key for key in keys if key in other["metrics"]]  # a run that resumed has no losses of earlier phases
    assert any(key.startswith("val/") for key in keys)
    metrics = [apart(one["metrics"][key], other["metrics"][key]) for key in keys]
    return {"losses": max(steps), "weights": max(weights), "metrics": max(d for d in metrics if not math.isnan(d))}
