"""The few collectives the project needs; each does nothing in a single process."""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce(tensor: Tensor, operation: Literal["sum", "min", "max"]) -> Tensor:
    """The tensor reduced over all ranks; the argument is left as it is."""
    if world_size() == 1:
        return tensor
    operations = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}
    result = tensor.clone()
    dist.all_reduce(result, op=operations[operation])
    return result


def gather_rows(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all ranks, rank after rank, on the CPU; ranks may hold different numbers of rows."""
    table = {name: column.cpu() for name, column in table.items()}
    if world_size() == 1:
        return table
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, table)
    return {name: torch.cat([part[name] for part in parts]) for name in table}
