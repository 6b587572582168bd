"""How much of each tile a raster mask covers, for all tiles at once."""

import numpy as np
from scipy import ndimage


def mask_coverage(
    mask: np.ndarray,
    origin: tuple[float, float],
    downsample: float,
    coords: np.ndarray,
    tile_size_level0: int,
    end: tuple[float, float] | None = None,
) -> np.ndarray:
    """Area fraction (N,) float32 in [0, 1] of square tiles that is covered by a mask; exact at any scale.

    The sum over a box of the mask is a difference of four corners of its integral image, and that image is bilinear
    within a mask pixel: interpolating it is no approximation. Outside the mask nothing is covered.

    Args:
        mask: (height, width) bool.
        origin: (x, y) of the mask's top-left corner in level-0 pixels.
        downsample: Level-0 pixels per mask pixel.
        coords: (N, 2) (x, y) of the tiles' top-left corners in level-0 pixels.
        tile_size_level0: Side of a tile in level-0 pixels.
        end: (x, y) level-0 pixels beyond which nothing is covered: the slide's lower right corner, which the last mask
            pixels may exceed; None = the mask's.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    near = (np.asarray(coords, dtype=np.float64) - origin) / downsample
    far = near + tile_size_level0 / downsample
    if end is not None:
        last = (np.asarray(end, dtype=np.float64) - origin) / downsample
        near, far = np.minimum(near, last), np.minimum(far, last)

    def corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(integral, [y, x], order=1, mode="nearest")

    covered = (
        corner(far[:, 0], far[:, 1])
        - corner(near[:, 0], far[:, 1])
        - corner(far[:, 0], near[:, 1])
        + corner(near[:, 0], near[:, 1])
    )
    return np.clip(covered * (downsample / tile_size_level0) ** 2, 0, 1).astype(np.float32)
