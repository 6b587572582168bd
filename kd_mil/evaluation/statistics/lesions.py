"""Tiles merged into lesions, the FROC curve of finding them, and the overlap of tiles with a mask.

froc([Slide(coords, scores, truth), ...]).score
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a slide at which CAMELYON16 reads the curve."""
NEIGHBOURS = 1.5
"""Tiles are of one lesion up to this distance (the larger of x and y), in steps of the grid: corners touch, too."""


class ScoredSlide(NamedTuple):
    """N tiles of a slide."""

    coords: np.ndarray
    """(N, 2) int, in level-0 pixels."""
    scores: np.ndarray
    """(N,) the higher the more positive."""
    truth: np.ndarray
    """(N,) 1 positive, 0 negative, -1 unknown."""


class Froc(NamedTuple):
    """Free-response ROC curve: lesions found against false positives."""

    false_positives: np.ndarray
    """(K,) ascending, mean number a slide."""
    sensitivity: np.ndarray
    """(K,) share of all lesions found."""
    at: dict[float, float]
    """Sensitivity at each of `RATES`."""
    score: float
    """Their mean: the figure of the CAMELYON16 challenge. NaN without a lesion."""
    lesions: int
    slides: int


def grid_step(coords: np.ndarray) -> float:
    """Distance of neighbouring tiles: the median over tiles of that to the nearest other; NaN below two tiles."""
    if len(coords) < 2:
        return math.nan
    distances, _ = cKDTree(coords).query(coords, k=2, p=np.inf)
    return float(np.median(distances[:, 1]))


def merged(coords: np.ndarray, step: float) -> np.ndarray:
    """Number of the lesion (M,) int from 0 that each of M positive tiles is of; neighbours share one.

    Args:
        coords: (M, 2).
        step: of the grid, as `grid_step` of all tiles; NaN = every tile is a lesion.
    """
    if len(coords) < 2 or math.isnan(step):
        return np.arange(len(coords))
    first, second = cKDTree(coords).query_pairs(NEIGHBOURS * step, p=np.inf, output_type="ndarray").T
    touching = coo_array((np.ones(len(first)), (first, second)), (len(coords), len(coords)))
    return connected_components(touching, directed=False)[1]


def detections(slide: ScoredSlide, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Merged tiles whose score is at least `least`: position (D,) of the highest tile of each, and its score (D,)."""
    above = np.flatnonzero(slide.scores >= least)
    lesion = merged(slide.coords[above], grid_step(slide.coords))
    order = np.lexsort((-slide.scores[above], lesion))
    first = np.unique(lesion[order], return_index=True)[1]
    peaks = above[order[first]]
    return peaks, slide.scores[peaks]


def froc(slides: Sequence[ScoredSlide], least: float) -> Froc:
    """FROC curve over slides (Bejnordi et al., JAMA 2017, with tiles in the place of pixels).

    A lesion is a group of neighbouring positive tiles, a detection one of tiles at or above `least`, with the score and
    the place of its highest tile. It finds the lesion it lies in; outside of any it is a false positive, and where
    nobody knows (-1) it does not count. Between points of the curve sensitivity is interpolated, as the challenge does.

    Args:
        slides: with truth; slides without a lesion count their false positives.
        least: score from which on tiles are merged: the instance threshold.
    """
    best: list[float] = []
    false: list[float] = []
    for slide in slides:
        positive = np.flatnonzero(slide.truth > 0)
        lesion = merged(slide.coords[positive], grid_step(slide.coords))
        found = np.full(int(lesion.max()) + 1 if len(lesion) else 0, -math.inf)
        lesion_of = dict(zip(positive.tolist(), lesion.tolist(), strict=True))
        for peak, score in zip(*(column.tolist() for column in detections(slide, least)), strict=True):
            if peak in lesion_of:
                found[lesion_of[peak]] = max(found[lesion_of[peak]], score)
            elif slide.truth[peak] == 0:
                false.append(score)
        best += found.tolist()
    return _curve(np.array(best), np.sort(np.array(false)), len(slides))


def _curve(best: np.ndarray, false: np.ndarray, slides: int) -> Froc:
    """From the highest score of a detection in each lesion, -inf where it has none, and those of false positives."""
    if not len(best):
        undefined = np.empty(0)
        return Froc(undefined, undefined, dict.fromkeys(RATES, math.nan), math.nan, 0, slides)
    steps = np.unique(np.r_[best[np.isfinite(best)], false])[::-1]
    sensitivity = np.r_[0.0, [(best >= step).mean() for step in steps]]
    false_positives = np.r_[0.0, [(len(false) - np.searchsorted(false, step)) / slides for step in steps]]
    last = np.unique(false_positives[::-1], return_index=True)[1]  # of equal rates the highest sensitivity
    rates, highest = false_positives[::-1][last], sensitivity[::-1][last]
    at = {rate: float(np.interp(rate, rates, highest)) for rate in RATES}
    return Froc(rates, highest, at, math.fsum(at.values()) / len(at), len(best), slides)


def tile_overlap(decided: np.ndarray, area: np.ndarray) -> dict[str, float]:
    """Dice and IoU of positive tiles with a mask, over the pixels of all tiles; NaN without a positive pixel.

    A tile that is called positive marks all its pixels, of which only a part may be positive.

    Args:
        decided: (N,) bool.
        area: (N,) positive share of the pixels of each tile, in [0, 1]; a label where no more is known.
    """
    hit, marked, truth = float(area[decided].sum()), float(decided.sum()), float(area.sum())
    if not truth:
        return {"dice": math.nan, "iou": math.nan}
    return {"dice": 2 * hit / (marked + truth), "iou": hit / (marked + truth - hit)}
