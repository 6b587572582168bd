"""Distances between the outlines of two masks, in pixels."""

import math

import numpy as np
from scipy import ndimage


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool of a mask that touch its outside, or the border of the image, by an edge."""
    return mask & ~ndimage.binary_erosion(mask)


def hausdorff_distances(predicted: np.ndarray, truth: np.ndarray, empty: str = "diagonal") -> tuple[float, float]:
    """Hausdorff distance of two outlines, and HD95: the larger of the two directed 95th percentiles.

    Args:
        predicted, truth: (H, W) bool.
        empty: distance where nothing is predicted: the `diagonal` of the image, that of a single point at the
            `origin` (as in IFKD's code), or `skip`, NaN.

    Returns:
        NaN for both without truth.
    """
    if not truth.any():
        return math.nan, math.nan
    if not predicted.any():
        if empty != "origin":
            distance = math.hypot(*truth.shape) if empty == "diagonal" else math.nan
            return distance, distance
        predicted = np.zeros_like(truth)
        predicted[0, 0] = True
    found, true = outline(predicted), outline(truth)
    there = ndimage.distance_transform_edt(~true)[found]
    back = ndimage.distance_transform_edt(~found)[true]
    return float(max(there.max(), back.max())), float(max(np.percentile(there, 95), np.percentile(back, 95)))
