"""The fully supervised rows of the segmentation tables: a U-Net (arXiv 1505.04597), or any network, trained on masks.

python -m kd_mil.run experiment=unet_supervised
python -m kd_mil.run experiment=unet_supervised segmenter=lite0_mil      # the network of a weakly supervised row
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.core.machine.shares import WHOLE, WholeStep
from kd_mil.data.batches import UNKNOWN, MaskedBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.pixel_losses import cross_entropy_of, cross_entropy_of_logits, soft_dice
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.models.preprocess import random_dihedral


class UNetSupervised(SegmentationMethod):
    """A segmenter trained on masks with cross-entropy and soft Dice: an upper bound for methods without masks.

    Args:
        instance_shape: (C, H, W) of the images.
        num_classes: 2.
        segmenter: factory of a network for masks; one with several maps learns by its fused one.
        augment: flips and quarter turns of image and mask together (square images only); `preprocess.augment` would
            turn the image alone.
        **training: preprocess, reading, optimizer, gradient_clip, seed of `SegmentationMethod`.

    Raises:
        UserError: more than two classes, images turned without their masks, or no training mask.
    """

    train_views = ("masked_images",)

    def __init__(
        self,
        instance_shape: tuple[int, ...],
        num_classes: int,
        segmenter: ModuleFactory,
        augment: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if num_classes != 2:
            raise UserError(
                f"method=unet_supervised tells tumour from the rest, but the data has {num_classes} classes"
            )
        if self.preprocess.augment:
            raise UserError("preprocess.augment would turn images without their masks: use method.augment=true instead")
        if augment and instance_shape[-1] != instance_shape[-2]:
            raise UserError(f"method.augment turns square images, but they are {tuple(instance_shape[1:])}")
        self.segmenter = segmenter(instance_shape=tuple(instance_shape))
        self.augment = augment

    def parts(self) -> list[nn.Module]:
        return [self.segmenter]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and (self.trainer.datamodule.masks("train") == UNKNOWN).all():  # type: ignore[attr-defined]
            raise UserError("method=unet_supervised needs masks, but no training image has one")

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        with dealing(batch.share) as deal:
            images, masks = self.preprocess(batch.images), batch.masks.float()
            if self.augment:
                turned = random_dihedral(torch.cat([images, masks[:, None]], 1))
                images, masks = turned[:, :-1], turned[:, -1]
            loss = self.loss(images, masks, deal)
        self.step_optimizers(loss, *self.optimizer_list())
        self.log_loss("model", loss, len(batch.labels))

    def loss(self, images: Tensor, masks: Tensor, deal: WholeStep = WHOLE) -> Tensor:
        """Mean cross-entropy over known pixels and mean soft Dice over images, of masks (B, H, W) 0, 1 or 255."""
        known = (masks != UNKNOWN).float()
        targets = masks * known
        if hasattr(self.segmenter, "logits"):
            logits = self.segmenter.logits(images)  # type: ignore[operator]
            probs, pixels = logits.sigmoid(), cross_entropy_of_logits(logits, targets) * known
        else:
            probs = self.segmenter(images).fused
            pixels = cross_entropy_of(probs, targets) * known
        overlap = deal.mean(soft_dice(probs * known, targets))
        return deal.sum(deal.real(pixels).sum()) / deal.sum(deal.real(known).sum()).clamp_min(1) + overlap

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        return {"model": self.segmenter(self.preprocess(images)).fused}
