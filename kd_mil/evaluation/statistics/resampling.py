"""What other cases would have said: bootstrap and permutation with all rows of a case together.

counts = np.concatenate(list(case_counts(cases, 2000, seed=0))); low, high = percentiles(auroc(rows)(counts))
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import stats

CELLS_AT_ONCE = 20_000_000


def case_counts(cases: Sequence[str], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn when whole cases are drawn with replacement: (r, N) float64, R resamples in all.

    As many at once as memory allows. Two classifiers scored on the same counts give a paired bootstrap.

    Args:
        cases: (N,) case of each row.
        resamples: R >= 1.
        seed: of the draws.
    """
    names, case_of = np.unique(np.asarray(cases), return_inverse=True)
    generator, law = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    at_once = max(1, CELLS_AT_ONCE // len(case_of))
    for start in range(0, resamples, at_once):
        drawn = generator.multinomial(len(names), law, min(at_once, resamples - start))
        yield drawn[:, case_of].astype(np.float64)


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of (R,) resampled values, undefined ones left out; NaN where none is defined."""
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def permutation_test(
    score: Callable[[np.ndarray], float],
    ours: np.ndarray,
    theirs: np.ndarray,
    cases: Sequence[str],
    permutations: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Difference of two classifiers on the same rows, and its two-sided p value under "which is which does not matter".

    The two exchange their predictions of whole cases. Exact where the cases allow no more exchanges than asked for.

    Args:
        score: of predictions (N, ...), such as `lambda probs: roc_auc_score(labels, probs)`.
        ours, theirs: (N, ...) predictions.
        cases: (N,) case of each row.
        permutations: most exchanges that are tried.
        seed: of those, where they are drawn.

    Returns:
        score(ours) - score(theirs), and p; NaN for p with fewer than two cases, or where a score is undefined.
    """
    names, case_of = np.unique(np.asarray(cases), return_inverse=True)
    difference = score(ours) - score(theirs)
    if len(names) < 2 or not math.isfinite(difference):
        return difference, math.nan
    both = np.stack([ours, theirs])
    rows = np.arange(len(case_of))

    def difference_of(first: np.ndarray, second: np.ndarray) -> float:
        return score(both[first[case_of], rows]) - score(both[second[case_of], rows])

    found = stats.permutation_test(
        (np.zeros(len(names), dtype=int), np.ones(len(names), dtype=int)),
        difference_of,
        permutation_type="samples",
        vectorized=False,
        n_resamples=permutations,
        random_state=seed,
    )
    return difference, float(found.pvalue)


def false_discovery_rates(p: Sequence[float | None]) -> list[float | None]:
    """p values of a family of comparisons, adjusted by Benjamini and Hochberg (1995); undefined ones stay out of it.

    Comparisons with an adjusted value of at most q hold at most a share q of false discoveries, on average.
    """
    known = [index for index, value in enumerate(p) if value is not None and not math.isnan(value)]
    adjusted = stats.false_discovery_control([p[index] for index in known]) if known else []
    return _filled(len(p), dict(zip(known, map(float, adjusted), strict=True)))


def _filled(count: int, values: dict[int, float]) -> list[float | None]:
    return [values.get(index) for index in range(count)]
