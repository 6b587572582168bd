"""BatchNorm over the rows of all ranks, on any device: `torch.nn.SyncBatchNorm` works on GPUs alone.

One collective forward, of 2 C numbers, and one backward, of as many.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from kd_mil.core.machine.shares import Share


def synced_batch_norm(
    share: Share,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.batch_norm` of the rows of all ranks, of which this rank has some (n, C, ...).

    Raises:
        ValueError: one value a channel on all ranks together has no variance.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    each = input.numel() // (input.shape[1] * len(share.rows))
    if each * share.total == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}")
    return _SyncedBatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps, share)


class _SyncedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        share: Share,
    ) -> Tensor:
        mean, var = statistics_of_all(input, share)
        values = input.numel() // input.shape[1] // len(share.rows) * share.total
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * values / (values - 1)).to(running_var), momentum)
        ctx.save_for_backward(input, weight, mean, var)
        ctx.share, ctx.eps, ctx.values = share, eps, values
        return F.batch_norm(input, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, var = ctx.saved_tensors
        fixed, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=memory_format(input)),
            *(input, weight, mean, var, None, None, False, ctx.eps, [True, True, True]),
        )
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        own = (None, None) if weight is None else (of_weight, of_bias)
        if not ctx.share.count:
            return torch.zeros_like(input), *own, *[None] * 5
        # what the statistics pass on to every value: a constant, and a multiple of the value
        scale = (var + ctx.eps).rsqrt()
        to_all = scale if weight is None else scale * weight
        slope = to_all * scale * sums[1] / ctx.values
        offset = to_all * sums[0] / ctx.values - slope * mean
        shape = (1, -1, *[1] * (input.dim() - 2))
        return fixed.addcmul_(input, slope.view(shape), value=-1).sub_(offset.view(shape)), *own, *[None] * 5


def statistics_of_all(input: Tensor, share: Share) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) over the rows of all ranks, of which each has its share (n, C, ...)."""
    values = (input if input.dtype == torch.float64 else input.float()).reshape(*input.shape[:2], -1)
    # twice as fast on CPUs as the kernel of BatchNorm, and ten times as torch.var_mean
    mean = values.mean(2).mean(0)
    apart = torch.linalg.vector_norm(values - mean[:, None], dim=2)
    var = apart.square().sum(0) / (values.shape[0] * values.shape[2])
    parts = [torch.empty_like(torch.stack([mean, var])) for _ in share.counts]
    dist.all_gather(parts, torch.stack([mean, var]))
    means, variances = torch.stack(parts, 1)
    weights = torch.tensor(share.counts, device=mean.device, dtype=mean.dtype)[:, None] / share.total
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)


def memory_format(values: Tensor) -> torch.memory_format:
    """Channels last, where images lie so in memory."""
    last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
