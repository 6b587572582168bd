"""Where the patches of an image lie, and how they are cut from it.

corners = nucleus_corners((500, 500), centres, 27)
patches = cut_patches(image, corners, 27, context=41)
"""

import numpy as np
import torch
import torch.nn.functional as F


def nucleus_corners(shape: tuple[int, int], centres: np.ndarray, patch_size: int) -> np.ndarray:
    """Top-left corners (n, 2) int64 (x, y) of patches centred on nuclei, shifted inside at the border."""
    return shifted_inside(shape, np.rint(centres).astype(np.int64) - patch_size // 2, patch_size)


def shifted_inside(shape: tuple[int, int], corners: np.ndarray, side: int) -> np.ndarray:
    """Corners (n, 2) (x, y) of squares of `side` pixels, moved as little as brings them into an image of (H, W)."""
    height, width = shape
    return corners.clip(0, (width - side, height - side))


def grid_patches(shape: tuple[int, int], centres: np.ndarray, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-left corners (n, 2) int64 of whole patches side by side, and which (n,) bool hold one of the centres."""
    rows, columns = shape[0] // patch_size, shape[1] // patch_size
    y, x = np.mgrid[:rows, :columns] * patch_size
    holds = np.zeros((rows, columns), dtype=bool)
    column, row = np.rint(centres).astype(np.int64).clip(0).T // patch_size
    inside = (row < rows) & (column < columns)
    holds[row[inside], column[inside]] = True
    return np.stack([x.ravel(), y.ravel()], axis=1), holds.ravel()


def cut_patches(image: np.ndarray, corners: np.ndarray, patch_size: int, context: int | None = None) -> np.ndarray:
    """Patches (n, C, patch_size, patch_size) of an image (C, H, W) at top-left corners (n, 2) (x, y).

    Args:
        image: uint8, or any type where there is no context.
        corners: of squares of `patch_size` pixels.
        patch_size: edge of what is returned.
        context: edge of the square that is read around the centre of each, shifted inside at the border, and reduced
            to `patch_size`; None = the patch itself.
    """
    side = context or patch_size
    corners = shifted_inside(image.shape[1:], corners - (side - patch_size) // 2, side)
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(1, 2))
    patches = np.ascontiguousarray(windows[:, corners[:, 1], corners[:, 0]].swapaxes(0, 1))
    if side == patch_size:
        return patches
    size = (patch_size, patch_size)
    reduced = F.interpolate(torch.from_numpy(patches).float(), size, mode="bilinear", antialias=True)
    return reduced.round().clamp(0, 255).byte().numpy()
