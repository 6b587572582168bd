"""How bags reach the network: batch sizes, what stays in memory, and the order of instances."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from kd_mil.core.checks import at_least, one_of
from kd_mil.core.machine.memory import free_bytes, process_share

GIBIBYTE = 1024**3
RESIDENT = 0.25
"""Share of free memory that instances may take."""


@dataclass(frozen=True)
class Loading:
    """How bags reach the network.

    Raises:
        UserError: a count below 1.
    """

    bags_per_step: int = 1
    """Bags in one teacher step, however many ranks share it; 1 is the papers' setting."""
    max_instances_per_step: int | None = None
    """Token budget: a step closes before it would hold more instances; larger bags go alone."""
    instances_per_step: int = 256
    """Instances in one student step, however many ranks share it."""
    eval_instances_per_step: int = 16384
    """Token budget of evaluation batches; does not change results."""
    resident_gib: float | None = 4.0
    """Instances up to this size (GiB) move to the training device once; larger sets stay in host memory or files.

    None: `RESIDENT` of the memory that is free at the start, and of a GPU's. Data in memory are compared whole when a
    run resumes, those in files by a sample: a run with None resumes where the choice is the same.
    """
    instance_order: Literal["scattered", "by_slide"] = "scattered"
    """Instances of a student step: any of the training set, or runs of neighbours out of some bags, for files."""
    num_workers: int = 0
    """Worker processes that read instances kept in files."""
    balanced_bags: bool = False
    """Training bags of all classes equally often in each epoch, which has as many bags as without."""
    limit_batches: int | None = None
    """Training batches of each view in one epoch, to try things out; None for all."""
    limit_bags: int | None = None
    """Training bags or images, classes in turn, to see whether a method can fit a few; None for all."""

    host_bytes: float = field(init=False, repr=False, compare=False)
    """Size up to which instances may stay in the memory of this process."""

    def __post_init__(self) -> None:
        counts = ("bags_per_step", "instances_per_step", "eval_instances_per_step", "max_instances_per_step")
        for name in (*counts, "limit_batches", "limit_bags"):
            value = getattr(self, name)
            if value is not None:
                at_least(name, value, 1)
        at_least("loading.num_workers", self.num_workers, 0)
        one_of("loading.instance_order", self.instance_order, ("scattered", "by_slide"))
        chosen = None if self.resident_gib is None else self.resident_gib * GIBIBYTE
        object.__setattr__(self, "host_bytes", RESIDENT * free_bytes() / process_share() if chosen is None else chosen)

    def device_bytes(self, device: torch.device) -> float:
        """Size up to which instances may move to a device."""
        if self.resident_gib is None and device.type == "cuda":
            return RESIDENT * torch.cuda.mem_get_info(device)[0]
        return self.host_bytes
