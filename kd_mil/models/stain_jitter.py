"""Random changes of the staining of haematoxylin and eosin images."""

import math

import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

from kd_mil.core.machine.dealing import draw_rows

DARKEST = 1 / 255
"""Darker values count as this one: black has no finite density."""


def jitter_stain(images: Tensor, strength: float, sizes: Tensor | None = None) -> Tensor:
    """Images with random strengths of the dyes (Tellez et al. 2018, "HED" augmentation), one draw for each bag.

    Optical densities are split into haematoxylin, eosin and a rest (Ruifrok & Johnston 2001), and each of the three is
    multiplied by a factor in 1 +- strength and moved by a density in +- strength. The patches of a slide were stained
    together: drawn one by one, attention would look for the patch that was changed the most.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        strength: half width of both ranges; .05 is light, .2 strong. Not that of implementations which take logarithms
            of 1 or 2 more than the pixels: there a factor changes white, and a move is no density.
        sizes: (B,) of the bags, end to end, all those of the step; None: every image by itself.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    with torch.autocast(images.device.type, enabled=False):  # 8 bits of mantissa would show

        def draw(count: int) -> Tensor:
            drawn = torch.rand(2, count if sizes is None else len(sizes), 3, dtype=images.dtype, device=images.device)
            draws = strength * (2 * drawn - 1)
            return draws if sizes is None else draws.repeat_interleave(sizes, 1, output_size=count)

        factors, moves = draw_rows(len(images), draw, dim=1)
        unmix = torch.from_numpy(hed_from_rgb).to(images)
        mix = torch.from_numpy(rgb_from_hed).to(images)
        change = (unmix * (1 + factors)[:, None, :]) @ mix  # (N, 3, 3), from densities to changed densities, as rows
        density = -images.clamp_min(DARKEST).log().flatten(2)
        changed = torch.baddbmm((moves @ mix)[:, :, None] * math.log(10), change.mT, density)
        return changed.neg_().exp_().clamp_max_(1).view_as(images)
