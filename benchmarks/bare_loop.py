"""WENO's two phases in plain PyTorch: what a training loop costs when there is no framework around it."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from kd_mil.data.datamodules import BagDataModule
from kd_mil.methods.base.attention_memory import attention_pseudo_labels
from kd_mil.methods.weno.losses import student_loss
from kd_mil.methods.weno.weno import WENO


class BareLoop:
    """The same computations as one epoch of `WENO` without mining, one bag a step, on copies of its networks.

    Args:
        method: where networks, optimiser and settings come from.
        data: bags of equal size, in memory.
    """

    def __init__(self, method: WENO, data: BagDataModule) -> None:
        bags = data.bags
        assert isinstance(bags.instances, Tensor)
        self.instances, self.bag_labels = bags.instances, bags.labels
        self.instance_labels = bags.labels[bags.bag_of_instance]
        self.bags = self.instances.view(len(bags), -1, *bags.instance_shape)
        self.bag_size = torch.tensor([self.bags.shape[1]])
        self.instances_per_step = data.loading.instances_per_step
        self.preprocess, self.encoder = copy.deepcopy(method.preprocess), copy.deepcopy(method.encoder)
        self.teacher, self.student = copy.deepcopy(method.aggregator), copy.deepcopy(method.student_head)
        self.point_scores: Any = getattr(self.teacher, "attention_logits", None)
        self.recompute, self.negative_weight = method.recompute, method.negative_weight
        parts = (self.encoder, self.teacher, self.student)
        self.optimizers = [method.new_optimizer(part.parameters()) for part in parts]
        self.bank = torch.zeros(len(self.instances))
        self.low, self.high = torch.tensor(0.0), torch.tensor(1.0)

    def teacher_phase(self, order: Tensor) -> Tensor:
        """A step on each of the bags `order` (B,); returns the summed loss."""
        encoder, teacher, _ = self.optimizers
        bank = self.bank.view(len(self.bags), -1)
        self.low, self.high = torch.tensor(math.inf), torch.tensor(-math.inf)
        total = torch.tensor(0.0)
        for bag in order.tolist():
            output = self.teacher(self.encoder(self.preprocess(self.bags[bag])), self.bag_size)
            scores = output.attention_logits.detach()
            self.low, self.high = torch.minimum(self.low, scores.min()), torch.maximum(self.high, scores.max())
            bank[bag] = scores
            loss = F.cross_entropy(output.bag_logits, self.bag_labels[bag : bag + 1])
            step(loss, encoder, teacher)
            total += loss.detach()
        return total

    def student_phase(self, order: Tensor) -> Tensor:
        """Steps on batches of the instances `order` (N,); returns the summed loss."""
        encoder, _, student = self.optimizers
        total = torch.tensor(0.0)
        for chosen in order.split(self.instances_per_step):
            features = self.encoder(self.preprocess(self.instances[chosen]))
            with torch.no_grad():
                scores = self.point_scores(features) if self.recompute else self.bank[chosen]
                targets = attention_pseudo_labels(scores, self.instance_labels[chosen], self.low, self.high)
            loss = student_loss(self.student(features), targets, self.negative_weight)
            step(loss, encoder, student)
            total += loss.detach()
        return total


def step(loss: Tensor, *optimizers: Optimizer) -> None:
    """One update."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
