"""Stain normalisation: the two dyes of a slide are estimated, and its tiles get the colours of reference dyes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.checks import above, share, whole
from kd_mil.core.errors import UserError
from kd_mil.slides.formats.reader import Slide
from kd_mil.slides.tiles.tiling import Tiles

PARALLEL = 0.999
"""Cosine between two dyes from which on they are one colour: nothing can be told apart."""
STRIDE = 2
"""Every second pixel of every second row tells the dyes as well as all."""


@dataclass(frozen=True)
class Macenko:
    """Normalisation of Macenko et al. (ISBI 2009), with torchstain's estimate of the dyes.

    The dyes are estimated once for a slide, from tiles spread over all of it: a tile without nuclei would give wrong
    ones. By the law of Beer and Lambert a pixel's optical density is then a sum of two dyes, and the normalised one the
    same sum of the reference dyes: a linear map, the same for all pixels of the slide.

    Raises:
        UserError: a value out of range.
    """

    tiles: int = 32
    """Tiles of a slide from which its dyes are estimated."""
    light: float = 240.0
    """Grey level of empty glass."""
    percentile: float = 1.0
    """Of the hues of pixels, that is taken for a pure dye, in %; robust to outliers."""
    least_density: float = 0.15
    """Optical density below which a pixel is glass."""

    def __post_init__(self) -> None:
        whole("stain.tiles", self.tiles, 1)
        above("stain.light", self.light)
        share("stain.percentile / 100", self.percentile / 100)
        above("stain.least_density", self.least_density)

    def attributes(self) -> dict[str, Any]:
        """What decides the colours, as plain values."""
        return {"name": "macenko", **asdict(self)}

    def of_slide(self, slide: Slide, tiles: Tiles) -> "StainMap":
        """The map of a slide, from some of its tiles.

        Raises:
            UserError: its dyes cannot be told, or torchstain is missing.
        """
        chosen = np.unique(np.linspace(0, len(tiles.coords) - 1, self.tiles).round().astype(int))
        size = (tiles.tile_size, tiles.tile_size)
        pixels = [slide.read(x, y, size, tiles.mpp)[::STRIDE, ::STRIDE] for x, y in tiles.coords[chosen].tolist()]
        return self.of_pixels(np.concatenate(pixels), f"slide {slide.name!r}")

    def of_pixels(self, pixels: np.ndarray, what: str) -> "StainMap":
        """The map of what pixels (H, W, 3) uint8 show; `what` begins the message where that is no two dyes."""
        try:
            from torchstain.torch.normalizers.macenko import TorchMacenkoNormalizer
        except ImportError as error:
            raise UserError("stain=macenko needs torchstain: pip install 'kd-mil[stain]'") from error
        reference, found = TorchMacenkoNormalizer(), TorchMacenkoNormalizer()
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        try:
            found.fit(image, Io=self.light, alpha=self.percentile, beta=self.least_density)
        except (RuntimeError, IndexError) as error:  # no or hardly any pixel that is no glass
            raise UserError(f"{what}: the dyes cannot be told, there is too little stain; stain=null") from error
        dyes, most = found.HERef.double(), found.maxCRef.double()
        told = bool(dyes.isfinite().all() and most.isfinite().all() and (most > 0).all())
        if not told or float(dyes[:, 0] @ dyes[:, 1]) > PARALLEL:
            raise UserError(f"{what}: two dyes cannot be told apart (one colour, or black and white?); stain=null")
        strength = torch.diag(reference.maxCRef.double() / most)
        return StainMap((reference.HERef.double() @ strength @ torch.linalg.pinv(dyes)).tolist(), self.light)


class StainMap:
    """Maps optical densities of a slide to those of the reference staining.

    Args:
        matrix: (3, 3), densities of red, green and blue.
        light: grey level of empty glass.
    """

    def __init__(self, matrix: Sequence[Sequence[float]], light: float) -> None:
        self.matrix, self.light = [list(map(float, row)) for row in matrix], light
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, tiles: Tensor) -> Tensor:
        """Normalise tiles (N, H, W, 3) uint8, on their device; (N, H, W, 3) uint8."""
        if tiles.device not in self._tables:
            density = -torch.log((torch.arange(256, device=tiles.device, dtype=torch.float32) + 1) / self.light)
            self._tables[tiles.device] = density, torch.tensor(self.matrix, device=tiles.device).T
        density, matrix = self._tables[tiles.device]
        mapped = density[tiles.int()] @ matrix
        return mapped.neg_().exp_().mul_(self.light).round_().clamp_(0, 255).to(torch.uint8)
