"""Shares of independent bags with the interval of Wilson (JASA 1927), which does not close where all or none are right.

wilson(6, 6)  # (0.61, 1.0)
"""

import math

import numpy as np
from scipy.stats import norm


def wilson(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Ends of the interval of a share `successes / total`; NaN of nothing.

    Args:
        successes: in [0, total].
        total: independent trials.
        level: of the interval, in (0, 1).
    """
    if not total:
        return math.nan, math.nan
    z, share = float(norm.ppf((1 + level) / 2)), successes / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def decided_shares(labels: np.ndarray, decided: np.ndarray, num_classes: int) -> dict[str, tuple[int, int]]:
    """Successes and total of `accuracy` and, with two classes, `sensitivity`, `specificity`, `precision` and `npv`.

    Args:
        labels, decided: (N,) int64 in [0, num_classes); of two classes 1 is the positive one.
        num_classes: C >= 2.
    """
    right = labels == decided
    parts = {"accuracy": np.ones(len(right), dtype=bool)}
    if num_classes == 2:
        parts |= {
            "sensitivity": labels == 1,
            "specificity": labels == 0,
            "precision": decided == 1,
            "npv": decided == 0,
        }
    return {name: (int(right[rows].sum()), int(rows.sum())) for name, rows in parts.items()}
