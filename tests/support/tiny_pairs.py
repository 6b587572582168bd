"""Small images at two resolutions, shared by the tests of resolution distillation."""

import numpy as np
import torch
from PIL import Image

from kd_mil.data.pairs.pair_data import PairedImages
from kd_mil.data.pairs.stack import ImageSource

MIXED = ((16, 16), (16, 24), (24, 16))


class TinyPairs(PairedImages):
    """Noise with a coloured square: the class is its colour."""

    def __init__(self, count=36, sizes=MIXED, classes=2, source=None, **settings):
        super().__init__(**{"student_downsample": 2, "images_per_step": 6, "val_fraction": 0.3} | settings)
        self.count, self.sizes, self.classes, self.facts = count, sizes, classes, source

    @property
    def instance_source(self):
        return self.facts or super().instance_source

    def picture(self, at):
        width, height = self.sizes[at % len(self.sizes)]
        pixels = np.random.default_rng(at).integers(60, 200, (height, width, 3), dtype=np.uint8)
        pixels[4:12, 4:12, at % self.classes] = 255
        return Image.fromarray(pixels)

    def read(self):
        names = tuple(f"class{c}" for c in range(self.classes))
        labels = torch.arange(self.count) % self.classes
        return ImageSource([f"i{at}" for at in range(self.count)], labels, names, self.picture)
