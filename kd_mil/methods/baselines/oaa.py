"""OAA-style masks: activation maps accumulated over training teach a segmenter (Jiang et al. 2019, ICCV).

python -m kd_mil.run experiment=oaa_style
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.machine.shares import WHOLE
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.baselines.pseudo_masks import PseudoMasks
from kd_mil.models.preprocess import random_dihedral
from kd_mil.models.segmenters.cam import scaled_activation

REDUCTION = 4
"""Side of a kept pixel in pixels of the image."""
AT_ONCE = 32


class OAA(PseudoMasks):
    """The idea of online attention accumulation: the maximum over the epochs of stage one covers more than one map.

    After each of its epochs the classifier's maps of all training images, in eval mode, are taken into the maximum that
    is kept of each. What is left out of the paper: `docs/fidelity.md`.

    Args:
        augment: flips and quarter turns in stage two, of image and mask together (square images only);
            `preprocess.augment` would turn the image alone.
        **stages: as of `PseudoMasks`.

    Raises:
        UserError: images turned without their masks, or turned and not square.
    """

    def __init__(self, instance_shape: tuple[int, ...], *, augment: bool = False, **stages: Any) -> None:
        super().__init__(instance_shape, **stages)
        if self.preprocess.augment:
            raise UserError("preprocess.augment would turn images without their maps: use method.augment=true instead")
        if augment and instance_shape[-1] != instance_shape[-2]:
            raise UserError(f"method.augment turns square images, but they are {tuple(instance_shape[1:])}")
        self.augment = augment
        self.accumulated: Tensor | None = None
        """(all images, H / 4, W / 4) float32 in [0, 1], the largest so far; None before the first epoch ends."""

    def on_validation_epoch_end(self) -> None:
        """Accumulate where ranks agree on the statistics of batch normalisation: once they were scored."""
        super().on_validation_epoch_end()
        if self.fitting and not self.distilling:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            self.accumulate(data.bags.instances, data.splits.train)

    @torch.no_grad()
    def accumulate(self, images: Tensor, positions: Tensor) -> None:
        """Take the present maps of the images (N, C, H, W) at some positions (M,) into the maximum."""
        if self.accumulated is None:
            height, width = (side // REDUCTION for side in images.shape[-2:])
            self.accumulated = torch.zeros(len(images), height, width)
        self.accumulated = self.accumulated.to(self.device)  # a checkpoint may have left it elsewhere
        for some in positions.to(images.device).split(AT_ONCE):
            maps = scaled_activation(self.teacher(self.preprocess(images[some].to(self.device))).activation)
            smaller = F.avg_pool2d(maps[:, None], REDUCTION)[:, 0]
            rows = some.to(self.device)
            self.accumulated[rows] = torch.maximum(self.accumulated[rows], smaller)

    def pseudo_masks(self, batch: ImageBatch, images: Tensor) -> tuple[Tensor, Tensor]:
        assert self.accumulated is not None  # stage one has an epoch
        indices = (batch.share or WHOLE).own(batch.indices).to(images.device)
        kept = self.accumulated.to(images.device)[indices]
        size = (images.shape[-2], images.shape[-1])
        maps = F.interpolate(kept[:, None], size, mode="bilinear", align_corners=False)
        if not self.augment:
            return images, maps[:, 0]
        turned = random_dihedral(torch.cat([images, maps], 1))
        return turned[:, :-1], turned[:, -1]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["accumulated"] = self.accumulated

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.accumulated = checkpoint["accumulated"]
