"""How many instances of Table I were positive, from its accuracy and F1: `python experiments/d2l_colon/prevalence.py`.

With accuracy a and F1 f, true positives are a share t = f (1 - a) / (2 (1 - f)) of all instances, errors a share 1 - a.
So positives are at least t (no miss) and at most t + 1 - a (all errors are misses).
"""

import statistics

from tabulate import PUBLISHED


def bounds(accuracy: float, f1: float) -> tuple[float, float]:
    """Least and largest share of positive instances that allow both values."""
    hits = f1 * (1 - accuracy) / (2 * (1 - f1))
    return hits, hits + 1 - accuracy


def main() -> None:
    """Bounds of every fold of every row, and their means over the folds."""
    for row, by_metric in PUBLISHED.items():
        folds = [bounds(*values) for values in zip(by_metric["accuracy"], by_metric["f1"], strict=True)]
        means = (statistics.fmean(values) for values in zip(*folds, strict=True))
        print(f"{row:8}", *(f"{low:.2f}-{high:.2f}" for low, high in folds), "mean {:.3f}-{:.3f}".format(*means))


if __name__ == "__main__":
    main()
