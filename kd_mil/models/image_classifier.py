"""A network for images, and what it says about them."""

from typing import NamedTuple

from torch import Tensor, nn

from kd_mil.models.preprocess import Preprocess


class ImageOutput(NamedTuple):
    """What a network says about B images of one size."""

    feature_map: Tensor
    """(B, E, h, w) of the last convolution, after its ReLU."""
    logits: Tensor
    """(B, C) before the softmax."""


class ImageClassifier(nn.Module):
    """A network with the pixel statistics it was trained with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.network = Preprocess(standardise=True), network

    def forward(self, images: Tensor) -> ImageOutput:
        """Classify images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.network(self.preprocess(images))
