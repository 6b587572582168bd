"""SyntheticGlandsPaired: drawn tissue at two resolutions, gland or none; needs no download."""

from typing import Any

import torch

from kd_mil.core.checks import at_least
from kd_mil.data.masks.synthetic_glands import draw_tissue
from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource, PixelReader


class SyntheticGlandsPaired(PairedImages):
    """The images of `SyntheticGlands`, labelled `normal` or `tumour`; every second one is positive.

    Args:
        image_size: side of the originals in pixels.
        images: how many, in all parts together.
        seed: of the images and of the split.
        **pairs: arguments of `PairedImages`.

    Raises:
        UserError: images of less than 32 pixels a side, or fewer than 20 of them.
    """

    def __init__(self, image_size: int = 64, images: int = 128, seed: int = 0, **pairs: Any) -> None:
        super().__init__(seed=seed, **pairs)
        at_least("data.image_size", image_size, 32)
        at_least("data.images", images, 20)
        self.image_size, self.count, self.seed = image_size, images, seed

    def read(self) -> ImageSource:
        """Draw all images."""
        drawn = [draw_tissue(self.image_size, at % 2 == 1, self.seed, at)[0] for at in range(self.count)]
        return ImageSource(
            ids=[f"image{at:04d}" for at in range(self.count)],
            labels=torch.arange(self.count) % 2,
            class_names=("normal", "tumour"),
            open=PixelReader(drawn),
        )
