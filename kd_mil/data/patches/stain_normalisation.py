"""Images of one look: colour normalisation against differences in staining and scanner between images."""

import warnings
from typing import Literal

import numpy as np
from skimage.color import lab2rgb, rgb2lab

StainNormalisation = Literal["none", "reinhard"]
REFERENCE = np.array([77.0, 19.0, -15.0]), np.array([14.5, 9.7, 9.9])
"""Mean and standard deviation of L*, a* and b*: rounded averages over the images of the colon set. Any other would do
as well: what follows standardises pixels over the training data."""
LEAST_CONTRAST = 0.1
"""A channel that varies less is constant but for rounding."""


def normalise_stain(image: np.ndarray, kind: StainNormalisation) -> np.ndarray:
    """The image (3, H, W) uint8 as it is (`none`), or in the colours of the reference.

    `reinhard` moves and stretches each channel to the reference's mean and standard deviation (Reinhard et al. 2001, in
    CIE-LAB in place of their logarithmic space). A channel without contrast is moved only. Nothing but the image and a
    constant is read: one test image tells nothing about another.
    """
    if kind == "none":
        return image
    lab = rgb2lab(image, channel_axis=0)
    mean, std = lab.mean((1, 2), keepdims=True), lab.std((1, 2), keepdims=True)
    target_mean, target_std = (values[:, None, None] for values in REFERENCE)
    stretch = np.where(std > LEAST_CONTRAST, target_std / std.clip(LEAST_CONTRAST), 1)
    return np.rint(255 * _to_rgb((lab - mean) * stretch + target_mean)).astype(np.uint8)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    """RGB in [0, 1]; colours that no screen can show are cut off by channel, which scikit-image would warn of."""
    lab[0] = lab[0].clip(0, 100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")
        return lab2rgb(lab, channel_axis=0).clip(0, 1)
