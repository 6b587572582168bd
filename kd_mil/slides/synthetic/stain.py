"""Colour of haematoxylin and eosin: two dye concentrations to RGB by the Beer-Lambert law."""

import numpy as np

LEVELS = 256
MAX_CONCENTRATION = 2.5

HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
EOSIN = np.array([0.2159, 0.8012, 0.5581])
"""Optical densities of the two dyes in red, green and blue at concentration 1 (Macenko et al., ISBI 2009)."""


class Stain:
    """One slide's staining, as a table from every pair of concentrations to a colour.

    Args:
        rng: draws the small differences between slides; None = the reference staining.
        variation: relative spread of the dye colours and strengths.
        white: (3,) RGB of empty glass.
    """

    def __init__(
        self,
        rng: np.random.Generator | None = None,
        variation: float = 0.04,
        white: tuple[int, int, int] = (243, 242, 244),
    ) -> None:
        dyes = np.stack([HAEMATOXYLIN, EOSIN])
        if rng is not None:
            dyes = dyes * (1 + variation * rng.normal(size=(2, 3))) * (1 + variation * rng.normal(size=(2, 1)))
        concentration = np.linspace(0, MAX_CONCENTRATION, LEVELS)
        density = concentration[:, None, None] * dyes[0] + concentration[None, :, None] * dyes[1]
        self.table = np.round(np.array(white) * np.exp(-density)).astype(np.uint8).reshape(-1, 3)

    def __call__(self, haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
        """Colours (h, w, 3) uint8 of concentrations (h, w) in [0, 2.5]; values outside are clipped."""
        scale = (LEVELS - 1) / MAX_CONCENTRATION
        rows, columns = (np.clip(dye * scale + 0.5, 0, LEVELS - 1).astype(np.uint16) for dye in (haematoxylin, eosin))
        return self.table[rows * LEVELS + columns]
