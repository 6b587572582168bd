"""Random masks of what attends most: baselines hide easy instances so, where WENO hides them by its student."""

import torch
from torch import Tensor

from kd_mil.models.segments import segment_ids, segment_ranks


def random_of_top(scores: Tensor, sizes: Tensor, top: Tensor, chosen: Tensor) -> Tensor:
    """Mask (N,): from each bag, `chosen` (B,) instances drawn from the `top` (B,) ones of highest score (N,)."""
    owner = segment_ids(sizes, len(scores))
    ticket = torch.rand(scores.shape, device=scores.device)
    ticket.masked_fill_(segment_ranks(scores, sizes) >= top[owner], -1)
    return segment_ranks(ticket, sizes) < torch.minimum(chosen, top)[owner]


def keep_harder_part(scores: Tensor, sizes: Tensor, ratio: float, share: float = 1.0, low_ratio: float = 0.0) -> Tensor:
    """Mask (N,) of the instances that stay when a bag loses some of its easiest ones, MHIM-MIL Sec. 3.3.

    Of a bag of n, about ratio * n instances go, drawn from the ratio / share * n of highest score (N,), or from the
    whole bag where that is more than it has, and the low_ratio * n of lowest score. Counts round up; of a bag that
    would lose all its instances the lowest stays.

    Args:
        scores: (N,) attention of the teacher.
        sizes: (B,) bag sizes.
        ratio: share of a bag to mask among the highest scores, in [0, 1).
        share: which part of the candidates is masked, in (0, 1]; 1 masks exactly the highest.
        low_ratio: share of a bag to mask among the lowest scores, in [0, 1).
    """
    owner = segment_ids(sizes, len(scores))
    share = max(share, ratio)
    top = (sizes * (ratio / share)).ceil().long()
    masked = random_of_top(scores, sizes, top, (top * share).ceil().long())
    masked |= segment_ranks(-scores, sizes) < (sizes * low_ratio).ceil().long()[owner]
    left = torch.zeros_like(sizes).index_add_(0, owner, (~masked).long())
    last_resort = (left == 0)[owner] & (segment_ranks(-scores, sizes) == 0)
    return ~masked | last_resort
