"""Two epochs of WENO's released feature scripts beside ours: equal weights, the same batches, mining active."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import lightning as L
import torch
from checkouts import checkout
from torch import Tensor, nn

from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.batches import BagBatch
from kd_mil.data.datamodules import BagDataModule, Loading
from kd_mil.data.samplers import InTurn
from kd_mil.methods.weno.mining import HardPositiveMining
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.encoders.small import FeatureProjector
from kd_mil.models.heads import InstanceHead
from kd_mil.models.preprocess import Preprocess

WIDTH, EPOCHS, RATE, NEGATIVE_WEIGHT = 512, 2, 0.02, 0.1
SCRIPTS = "train_CAMELYONFeat_BagDistillation{}_SharedEnc_Similarity_StuFilterSmoothed_DropPos"
UNUSED = ("tensorboardX", "Datasets_loader", "Datasets_loader.dataset_CAMELYON16_BasedOnFeat", "utliz", "util")
"""Modules of the scripts that log, score and read data."""


class FeatureData(BagDataModule):
    """24 bags of features; positive instances, about a third of a positive bag, are shifted."""

    def load(self) -> BagSplits:
        generator = torch.Generator().manual_seed(0)
        sizes = torch.randint(5, 30, (24,), generator=generator)
        labels = torch.arange(24) % 2
        owner = torch.arange(24).repeat_interleave(sizes)
        truth = (torch.rand(len(owner), generator=generator) < 0.3) & (labels[owner] > 0)
        features = torch.randn(len(owner), WIDTH, generator=generator) + truth[:, None]
        bags = Bags(features, sizes, labels, [f"bag{number}" for number in range(24)], truth.long())
        order = torch.arange(24)
        return BagSplits(bags, order[:16], order[16:20], order[20:])


class Batches:
    """Given batches in the form in which the scripts' loaders give them, of one epoch after the other."""

    def __init__(self, epochs: Iterable[list[Any]], instances: int) -> None:
        self.epochs, self.dataset = iter(epochs), range(instances)

    def __iter__(self) -> Iterator[Any]:
        return iter(next(self.epochs))

    def __len__(self) -> int:
        return 1


def bag_batch(batch: BagBatch) -> tuple[Tensor, list[Any], Tensor]:
    """A bag as the script's loader gives it: features, labels of patches and bag and the bag's number, its place."""
    return batch.instances[None], [batch.instance_labels[None], batch.labels, 0], batch.bag_indices[None]


def instance_batch(batch: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """Instances likewise."""
    return batch.instances, [batch.instance_labels, batch.labels, batch.bag_indices], batch.instance_ids


def compare(folder: str, teacher: str) -> dict[str, float]:
    """Largest differences of weights after two epochs, in units of the largest change of that network's weights.

    Args:
        folder: checkout of WENO.
        teacher: `abmil` or `dsmil`.
    """
    with checkout(folder, *UNUSED) as module:
        script = module(SCRIPTS.format("DSMIL" if teacher == "dsmil" else ""))
        script.utliz.cal_TPR_TNR_FPR_FNR.return_value = ([0] * 4, 0, 0)
        heads = module("models.alexnet")
        torch.manual_seed(0)
        theirs = [
            heads.camelyon_feat_projecter(WIDTH, WIDTH),
            {"abmil": heads.teacher_Attention_head, "dsmil": heads.teacher_DSMIL_head}[teacher](input_feat_dim=WIDTH),
            heads.student_head(input_feat_dim=WIDTH),
        ]
    ours, data = method(teacher), FeatureData(Loading(instances_per_step=64))
    same = weights_of(ours, theirs, teacher)
    for mine, original in same:
        mine.data.copy_(original.data.view_as(mine))
    start = [mine.detach().clone() for mine, _ in same]
    train_ours(ours, data)
    train_theirs(script, theirs, data)
    assert ours.notes.dropped, "mining was not active"
    changes = [float((mine - begin).abs().max()) for (mine, _), begin in zip(same, start, strict=True)]
    apart = [float((mine - original.view_as(mine)).abs().max()) for mine, original in same]
    return {
        "weights, relative to their change": max(apart) / max(changes),
        "weights": max(apart),
        "statistics of the encoder": statistics_apart(ours.encoder, theirs[0]),
        "instances dropped in the last epoch": float(sum(len(ids) for ids in ours.notes.dropped)),
    }


def method(teacher: str) -> WENO:
    """Ours, with the settings of the script: no dropout, so that nothing is random."""
    aggregators = {
        "abmil": partial(ABMIL, hidden=(1024, 1024), attention_dim=512),
        "dsmil": partial(DSMIL, hidden=(1024, 1024), attention_dim=1024, query="linear", value="linear"),
    }
    return WENO(
        instance_shape=(WIDTH,),
        num_classes=2,
        encoder=partial(FeatureProjector, out_features=WIDTH, norm="batch"),
        aggregator=aggregators[teacher],
        student_head=partial(InstanceHead, hidden=(4096, 4096)),
        hpm=HardPositiveMining(mode="threshold", threshold=0.5, start_epoch=1, fallback="easiest"),
        preprocess=Preprocess(),
        optimizer=partial(torch.optim.SGD, lr=RATE),
        attention_from="recompute",
        attention_source="instance" if teacher == "dsmil" else "attention",
        negative_weight=NEGATIVE_WEIGHT,
    )


def weights_of(ours: WENO, theirs: list[nn.Module], teacher: str) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Parameters of the same meaning, which come in the same order but for DSMIL's classifier."""
    _, head, student = theirs
    for layer in (*head.modules(), *student.modules()):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    unused = {id(weight) for weight in head.top_layer.parameters()} if teacher == "dsmil" else set()
    originals = [[weight for weight in net.parameters() if id(weight) not in unused] for net in theirs]
    mine = [list(net.parameters()) for net in (ours.encoder, ours.aggregator, ours.student_head)]
    return [pair for one, other in zip(mine, originals, strict=True) for pair in zip(one, other, strict=True)]


def train_ours(ours: WENO, data: FeatureData) -> None:
    """Our trainer."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(ours, datamodule=data)


def train_theirs(script: Any, networks: list[nn.Module], data: FeatureData) -> None:
    """The loop of the script on the batches that ours had."""
    views = InTurn([data.bag_loader(), data.instance_loader()], epoch=lambda: 0)
    bags, instances = [], []
    for epoch in range(EPOCHS):
        views.epoch = lambda epoch=epoch: epoch
        batches = list(views)
        bags.append([bag_batch(batch) for batch in batches if isinstance(batch, BagBatch)])
        instances.append([instance_batch(batch) for batch in batches if not isinstance(batch, BagBatch)])
    count = len(data.bags.bag_of_instance)
    loop = script.Optimizer(
        *networks,
        *(torch.optim.SGD(network.parameters(), lr=RATE) for network in networks),
        Batches(bags, count),
        Batches(instances, count),
        None,
        None,
        writer=MagicMock(),
        dev=torch.device("cpu"),
        StuFilterType="FilterNegInstance_ThreProb50",
        smoothE=0,
        stu_loss_weight_neg=NEGATIVE_WEIGHT,
    )
    for epoch in range(EPOCHS):
        loop.optimize_teacher(epoch)
        loop.optimize_student(epoch)


def statistics_apart(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest difference of the running statistics of batch normalisation."""
    pairs = zip(ours.buffers(), theirs.buffers(), strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)
