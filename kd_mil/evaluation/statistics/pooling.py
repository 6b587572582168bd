"""From what is said of the slides of a case to what is said of the case."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Pooling = Literal["max", "mean"]
POOLINGS: tuple[Pooling, ...] = ("max", "mean")


class PooledCases(NamedTuple):
    """K cases in the order in which they first occur."""

    names: list[str]
    first: np.ndarray
    """(K,) position of the first row of each."""
    of_row: np.ndarray
    """(N,) number of the case of each row."""


def cases_of(cases: Sequence[str]) -> PooledCases:
    """The cases of N rows."""
    number: dict[str, int] = {}
    of_row = np.array([number.setdefault(case, len(number)) for case in cases], dtype=np.int64)
    first = np.unique(of_row, return_index=True)[1] if len(of_row) else of_row
    return PooledCases(list(number), first, of_row)


def pooled_probs(probs: np.ndarray, cases: PooledCases, how: Pooling = "max") -> np.ndarray:
    """Probabilities (K, C) of cases from those of their slides (N, C): the mean, or those of the most positive slide.

    `max` is the rule of weak supervision: a case is as positive as its most positive slide.
    """
    if how == "mean":
        sums = np.zeros((len(cases.names), probs.shape[1]))
        np.add.at(sums, cases.of_row, probs)
        return sums / np.bincount(cases.of_row)[:, None]
    order = np.lexsort((-probs[:, 1:].max(1), cases.of_row))
    return probs[order[np.unique(cases.of_row[order], return_index=True)[1]]]


def pooled_labels(labels: np.ndarray, cases: PooledCases) -> np.ndarray:
    """Label (K,) of each case: the highest among its slides (N,), as in the division into folds."""
    highest = np.full(len(cases.names), -1, dtype=np.int64)
    np.maximum.at(highest, cases.of_row, labels)
    return highest


def pooled_words(words: Sequence[str], cases: PooledCases) -> list[str]:
    """Word (K,) of each case from those of its slides (N,); of slides that differ all words, as in `Leiden + Oslo`."""
    found: list[set[str]] = [set() for _ in cases.names]
    for case, word in zip(cases.of_row.tolist(), words, strict=True):
        found[case].add(word)
    return ["" if of_case == {""} else " + ".join(word or "unknown" for word in sorted(of_case)) for of_case in found]
