"""Images of one look: colour normalisation against differences in staining and scanner between images."""

import warnings

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from kd_mil.errors import UserError

KINDS = ("none", "reinhard")
REFERENCE = np.array([77.0, 19.0, -15.0]), np.array([14.5, 9.7, 9.9])
"""Mean and standard deviation of L*, a* and b*: about the average image of haematoxylin and eosin at 20x."""


def check_kind(kind: str) -> None:
    """Refuse an unknown normalisation.

    Raises:
        UserError: naming the choices.
    """
    if kind not in KINDS:
        raise UserError(f"data.stain_normalisation={kind!r}: choose {' or '.join(KINDS)}")


def normalise_stain(image: np.ndarray, kind: str) -> np.ndarray:
    """The image (3, H, W) uint8 as it is (`none`), or in the colours of the reference.

    `reinhard` moves and stretches each channel of CIE-LAB to the reference's mean and standard deviation (Reinhard et
    al. 2001). Nothing but the image itself is read, so that a test image tells nothing about another. A channel
    without any variation is moved only.
    """
    if kind == "none":
        return image
    lab = rgb2lab(image, channel_axis=0)
    mean, std = lab.mean((1, 2), keepdims=True), lab.std((1, 2), keepdims=True)
    target_mean, target_std = (values[:, None, None] for values in REFERENCE)
    stretched = (lab - mean) * np.divide(target_std, std, out=np.ones_like(std), where=std > 0) + target_mean
    return np.rint(255 * _to_rgb(stretched)).astype(np.uint8)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    """RGB in [0, 1]; colours that no screen can show are cut off by channel, which scikit-image would warn of."""
    lab[0] = lab[0].clip(0, 100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")
        return lab2rgb(lab, channel_axis=0).clip(0, 1)
