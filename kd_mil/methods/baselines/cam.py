"""Class activation maps as masks: what an image classifier knows about pixels (Zhou et al. 2016, arXiv 1512.04150).

python -m kd_mil.run experiment=cam_baseline                         # VGG
python -m kd_mil.run experiment=cam_baseline segmenter=resnet_mil    # the trunk of any segmenter
"""

from typing import Any

from torch import Tensor, nn

from kd_mil.core.errors import UserError
from kd_mil.core.machine.dealing import dealing
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.method import ModuleFactory
from kd_mil.methods.base.pixel_losses import cross_entropy_of_logits
from kd_mil.methods.base.segmentation_method import SegmentationMethod
from kd_mil.models.segmenters.cam import CamClassifier, ClassActivation, TrunkClassifier, activation_probs


class CAM(SegmentationMethod):
    """An image classifier trained on image labels; its activation map, scaled to the image's probability, is the mask.

    Args:
        instance_shape: (C, H, W) of the images.
        num_classes: 2.
        segmenter: factory of the classifier, `models.segmenters.cam.CamClassifier`, or of a segmenter whose stages then
            classify.
        **training: preprocess, reading, optimizer, gradient_clip, seed of `SegmentationMethod`.

    Raises:
        UserError: more than two classes, or a segmenter without feature maps.
    """

    def __init__(
        self, instance_shape: tuple[int, ...], num_classes: int, segmenter: ModuleFactory, **training: Any
    ) -> None:
        super().__init__(**training)
        if num_classes != 2:
            raise UserError(f"method=cam tells tumour from the rest, but the data has {num_classes} classes")
        network = segmenter(instance_shape=tuple(instance_shape))
        self.classifier = network if isinstance(network, CamClassifier) else TrunkClassifier(network)

    def parts(self) -> list[nn.Module]:
        return [self.classifier]

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        with dealing(batch.share) as deal:
            output: ClassActivation = self.classifier(self.preprocess(batch.images))
            loss = deal.mean(cross_entropy_of_logits(output.logits, deal.own(batch.labels).float()))
        self.step_optimizers(loss, *self.optimizer_list())
        self.log_loss("model", loss, len(batch.labels))

    def predict_maps(self, images: Tensor) -> dict[str, Tensor]:
        return {"model": activation_probs(self.classifier(self.preprocess(images)))}

    def predict_images(self, images: Tensor, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """The classifier's own: a sharp map has a small mean, which must not count against its epoch."""
        return {"model": self.classifier(self.preprocess(images)).logits.double().sigmoid()}
