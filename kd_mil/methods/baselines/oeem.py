"""OEEM-style masks: a segmenter learns activation maps, easy pixels weighing more (Li et al. 2022, arXiv 2206.06665).

python -m kd_mil.run experiment=oeem_style
"""

from torch import Tensor

from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.pixel_losses import easy_weights
from kd_mil.methods.baselines.pseudo_masks import PseudoMasks
from kd_mil.models.segmenters.cam import scaled_activation


class OEEM(PseudoMasks):
    """The idea of online easy example mining: where a pseudo-mask is wrong, the segmenter's loss is high.

    Maps come from the frozen classifier, of the very images that the segmenter sees. What is left out of the paper:
    `docs/fidelity.md`.
    """

    def pseudo_masks(self, batch: ImageBatch, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, scaled_activation(self.teacher(images).activation)

    def pixel_weights(self, losses: Tensor, masks: Tensor) -> Tensor:
        return easy_weights(losses, masks)
