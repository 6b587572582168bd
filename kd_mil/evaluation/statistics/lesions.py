"""Tiles merged into lesions, the FROC curve of finding them, and the overlap of tiles with a mask.

froc([Slide(coords, scores, truth), ...]).score
"""

import math
from collections.abc import Callable, Sequence
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
    found = found_lesions(slides, least)
    if not len(found.best):
        undefined = np.empty(0)
        return Froc(undefined, undefined, dict.fromkeys(RATES, math.nan), math.nan, 0, len(slides))
    false_positives, sensitivity = (column[0] for column in _curves(found, np.ones((1, len(slides)))))
    rates, highest = _steps(false_positives, sensitivity)
    at = {rate: float(np.interp(rate, rates, highest)) for rate in RATES}
    return Froc(rates, highest, at, math.fsum(at.values()) / len(at), len(found.best), len(slides))


class FoundLesions(NamedTuple):
    """Lesions of S slides with the detections that find them, and the detections that find nothing."""

    best: np.ndarray
    """(L,) highest score of a detection in each lesion, -inf where it has none."""
    lesion_slide: np.ndarray
    """(L,) int64 slide of each."""
    false: np.ndarray
    """(F,) scores of false positives."""
    false_slide: np.ndarray
    """(F,) int64 slide of each."""


def found_lesions(slides: Sequence[ScoredSlide], least: float) -> FoundLesions:
    """What a FROC curve is made of; arguments as in `froc`."""
    best: list[tuple[float, int]] = []
    false: list[tuple[float, int]] = []
    for number, slide in enumerate(slides):
        positive = np.flatnonzero(slide.truth > 0)
        lesion = merged(slide.coords[positive], grid_step(slide.coords))
        found = np.full(int(lesion.max()) + 1 if len(lesion) else 0, -math.inf)
        lesion_of = dict(zip(positive.tolist(), lesion.tolist(), strict=True))
        for peak, score in zip(*(column.tolist() for column in detections(slide, least)), strict=True):
            if peak in lesion_of:
                found[lesion_of[peak]] = max(found[lesion_of[peak]], score)
            elif slide.truth[peak] == 0:
                false.append((score, number))
        best += [(score, number) for score in found.tolist()]
    columns = [np.array(rows, dtype=np.float64).reshape(-1, 2).T for rows in (best, false)]
    (scores, owners), (others, others_of) = columns
    return FoundLesions(scores, owners.astype(np.int64), others, others_of.astype(np.int64))


def weighted_froc(found: FoundLesions) -> Callable[[np.ndarray], np.ndarray]:
    """`Froc.score` (R,) as a function of how often (R, S) each slide was drawn; NaN where none has a lesion."""

    def score(weights: np.ndarray) -> np.ndarray:
        if not len(found.best):
            return np.full(len(weights), math.nan)
        curves = zip(*_curves(found, weights), strict=True)
        return np.array([np.interp(RATES, *_steps(rates, shares)).mean() for rates, shares in curves])

    return score


def _curves(found: FoundLesions, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positives a slide and share of lesions found (R, K) at descending scores, after 0 at an infinite one."""
    best, false = np.argsort(-found.best, kind="stable"), np.argsort(-found.false, kind="stable")
    scores = np.unique(np.r_[found.best[np.isfinite(found.best)], found.false])[::-1]
    columns = []
    for values, order, slide in (
        (found.false, false, found.false_slide),
        (found.best, best, found.lesion_slide),
    ):
        summed = np.pad(weights[:, slide[order]].cumsum(1), ((0, 0), (1, 0)))
        columns.append(summed[:, np.r_[0, np.searchsorted(-values[order], -scores, side="right")]])
    with np.errstate(invalid="ignore", divide="ignore"):
        lesions = weights[:, found.lesion_slide].sum(1)
        return columns[0] / weights.sum(1)[:, None], columns[1] / lesions[:, None]


def _steps(rates: np.ndarray, sensitivity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of equal rates (K,), ascending, the last, which has the highest sensitivity (K,)."""
    last = np.r_[rates[1:] > rates[:-1], True]
    return rates[last], sensitivity[last]


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
