"""Bootstrap confidence intervals of scores that are functions of confusion counts."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.checks import at_least
from kd_mil.evaluation.classification import confusion_scores

RESAMPLES = 10_000
CELLS_AT_ONCE = 20_000_000


class Interval(NamedTuple):
    """A score over bootstrap resamples."""

    mean: float
    low: float
    """2.5th percentile."""
    high: float
    """97.5th percentile."""
    defined: float
    """Share of resamples in which the score is defined; the other fields are over those, NaN without any."""


def bootstrap(
    labels: Tensor,
    decided: Tensor,
    num_classes: int,
    resamples: int = RESAMPLES,
    balanced: bool = False,
    size: int | None = None,
    seed: int = 0,
    cases: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Intervals of the scores of `confusion_scores`.

    Rows drawn with replacement fall into the cells of the confusion matrix by a multinomial law, so the counts are
    drawn at once: the same distribution as resampling rows. Where cases group rows, whole cases are drawn instead.

    Args:
        labels, decided: (N,) int64 in [0, C).
        balanced: draw every class with the same probability (the authors' code), not every image.
        size: rows of a resample; None = N. Not with cases.
        seed: of the draw.
        cases: (N,) case of each row; None = every row is a case of its own. Not with `balanced`, whose law is of rows.

    Raises:
        UserError: fewer than one resample or row.
    """
    cells = labels * num_classes + decided

    def scores(counts: Tensor) -> dict[str, Tensor]:
        return confusion_scores(counts.view(-1, num_classes, num_classes))

    if cases is not None and len(set(cases)) < len(cases):
        assert not balanced
        assert size is None
        return _case_intervals(cells, num_classes**2, cases, scores, resamples, seed)
    return _intervals(cells, num_classes**2, labels, scores, resamples, balanced, size, seed)


def bootstrap_difference(
    labels: Tensor,
    decided: Tensor,
    reference: Tensor,
    num_classes: int,
    resamples: int = RESAMPLES,
    balanced: bool = False,
    seed: int = 0,
    cases: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Intervals of score(decided) - score(reference), both (N,) int64, on the same resamples of the same images.

    `cases` as in `bootstrap`.
    """
    cells = (labels * num_classes + decided) * num_classes + reference

    def differences(counts: Tensor) -> dict[str, Tensor]:
        cube = counts.view(-1, num_classes, num_classes, num_classes)
        ours, theirs = confusion_scores(cube.sum(3)), confusion_scores(cube.sum(2))
        return {name: ours[name] - theirs[name] for name in ours}

    if cases is not None and len(set(cases)) < len(cases):
        assert not balanced
        return _case_intervals(cells, num_classes**3, cases, differences, resamples, seed)
    return _intervals(cells, num_classes**3, labels, differences, resamples, balanced, None, seed)


def _case_intervals(
    cells: Tensor,
    num_cells: int,
    cases: Sequence[str],
    scores: Callable[[Tensor], dict[str, Tensor]],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    at_least("resamples of the bootstrap", resamples, 1)
    names, case_of = np.unique(np.asarray(cases), return_inverse=True)
    occupied, cell_of = cells.unique(return_inverse=True)
    counts_of_case = torch.zeros(len(names), len(occupied), dtype=torch.float64)
    ones = torch.ones(len(cells), dtype=torch.float64)
    counts_of_case.index_put_((torch.from_numpy(case_of), cell_of), ones, accumulate=True)
    generator, law = np.random.default_rng(seed), np.full(len(names), 1 / len(names))

    def draw(count: int) -> Tensor:
        counts = torch.zeros(count, num_cells, dtype=torch.float64)
        times = torch.from_numpy(generator.multinomial(len(names), law, count)).double()
        counts[:, occupied] = times @ counts_of_case
        return counts

    return _summarise(draw, scores, resamples, max(num_cells, len(names)))


def _intervals(
    cells: Tensor,
    num_cells: int,
    labels: Tensor,
    scores: Callable[[Tensor], dict[str, Tensor]],
    resamples: int,
    balanced: bool,
    size: int | None,
    seed: int,
) -> dict[str, Interval]:
    size = len(labels) if size is None else size
    at_least("resamples of the bootstrap", resamples, 1)
    at_least("images of a resample", size, 1)
    weights = 1 / torch.bincount(labels)[labels].double() if balanced else torch.ones(len(labels), dtype=torch.float64)
    mass = torch.bincount(cells, weights, minlength=num_cells)
    occupied = mass.nonzero().flatten()
    law = (mass[occupied] / mass.sum()).numpy()
    generator = np.random.default_rng(seed)

    def draw(count: int) -> Tensor:
        counts = torch.zeros(count, num_cells, dtype=torch.float64)
        counts[:, occupied] = torch.from_numpy(generator.multinomial(size, law, count)).double()
        return counts

    return _summarise(draw, scores, resamples, num_cells)


def _summarise(
    draw: Callable[[int], Tensor], scores: Callable[[Tensor], dict[str, Tensor]], resamples: int, cells: int
) -> dict[str, Interval]:
    """Intervals over resamples, as many counts (r, cells) drawn at once as memory allows."""
    values: dict[str, list[Tensor]] = {}
    at_once = max(1, CELLS_AT_ONCE // cells)
    for start in range(0, resamples, at_once):
        for name, drawn in scores(draw(min(at_once, resamples - start))).items():
            values.setdefault(name, []).append(drawn)
    return {name: interval(torch.cat(parts)) for name, parts in values.items()}


def interval(values: Tensor) -> Interval:
    """Mean and 95 % percentile interval of (R,) values, NaN left out."""
    known = values[values.isfinite()]
    if not len(known):
        return Interval(math.nan, math.nan, math.nan, 0.0)
    low, high = np.percentile(known.numpy(), [2.5, 97.5])
    return Interval(float(known.mean()), float(low), float(high), len(known) / len(values))
