"""The epochs of WENO's released CIFAR-10 script on our bags, imported from a checkout of github.com/miccaiif/WENO."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.equivalence.checkouts import checkout
from kd_mil.data.bags import Bags

SCRIPT = "train_CIFAR_BagDistillation_SharedEnc_Similarity_StuFilterSmoothed_DropPos"
DATA, NETWORKS = "Datasets_loader.dataset_MIL_CIFAR", "models.alexnet"
UNUSED = ("tensorboardX", "utliz", "util")
"""Modules of the script that log and score: their time is not counted, and they need not be installed."""


class ReleasedLoop:
    """The script's own epochs on our bags.

    Args:
        module: imports from the checkout.
        bags: of 100 instances each, in memory.
        chosen: bags (B,) that train.
        batch: instances of a student step.
    """

    def __init__(self, module: Callable[[str], Any], bags: Bags, chosen: Tensor, batch: int) -> None:
        script, networks = module(SCRIPT), module(NETWORKS)
        script.utliz.cal_TPR_TNR_FPR_FNR.return_value = ([0] * 4, 0, 0)
        script.tqdm = lambda loader, **_: loader
        self.encoder, self.student = networks.alexnet_CIFAR10_Encoder(), networks.student_head()
        parts = [self.encoder, networks.teacher_Attention_head(), self.student]
        instances, whole = (dataset(module(DATA), bags, chosen, return_bag=kind) for kind in (False, True))
        self._loop = script.Optimizer(
            *parts,
            *(torch.optim.SGD(part.parameters(), lr=0.001) for part in parts),
            DataLoader(whole, batch_size=1, shuffle=True),
            DataLoader(instances, batch_size=batch, shuffle=True),
            None,
            None,
            writer=MagicMock(),
            dev=torch.device("cpu"),
            StuFilterType="FilterNegInstance_Top100",
            smoothE=9999,
            stu_loss_weight_neg=0.2,
        )

    def turns(self, epoch: int) -> dict[str, Callable[[], object]]:
        """One epoch, phase by phase."""
        loop = self._loop
        return {"teacher": lambda: loop.optimize_teacher(epoch), "student": lambda: loop.optimize_student(epoch)}


MakeLoop = Callable[[Bags, Tensor, int], ReleasedLoop]


def dataset(module: Any, bags: Bags, chosen: Tensor, return_bag: bool) -> Any:
    """The script's own data set, with our bags in place of those that it would draw."""
    made = module.CIFAR_WholeSlide_challenge.__new__(module.CIFAR_WholeSlide_challenge)
    places = bags.instances_of(chosen).view(len(chosen), -1)
    length = places.shape[1]
    made.ds_data, made.ds_label, made.idx_all_slides = bags.instances, bags.instance_labels.long(), places
    made.label_all_slides = bags.labels[chosen, None].expand_as(places)
    made.positive_num, made.bag_length, made.num_img_per_slide = [1], length, length
    made.return_bag, made.transform = return_bag, None
    return made


@contextmanager
def loops_of(folder: str | None) -> Iterator[MakeLoop | None]:
    """What makes their loop while the checkout can be imported; None without one."""
    if folder is None:
        yield None
        return
    with checkout(folder, *UNUSED) as module:
        yield lambda bags, chosen, batch: ReleasedLoop(module, bags, chosen, batch)
