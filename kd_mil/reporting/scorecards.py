"""The instance scorecard of many runs: teacher, student and their mean as words on instances, with intervals by case.

entries = scorecard_entries(points, resamples=1000, seed=0)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kd_mil.evaluation.scorecard import words
from kd_mil.evaluation.statistics.weighted_scores import Weighted, binary_rows
from kd_mil.reporting.comparison import Entry, entry_of
from kd_mil.reporting.predictions import HeldOut, instance_table, positive_bags
from kd_mil.reporting.resampling import CaseDraws, ranked_instances
from kd_mil.reporting.runs import Point

FILE = "scorecard.csv"
"""Of a run that tested a teacher and a student on instances with a label."""
RANKED = ("auroc", "auroc_within", "auroc_per_bag")
"""Columns of the scorecard: of all instances, of those of positive bags, and bag by bag."""
NORMALISED = {"none": "as it is", "bag": "range of its bag", "set": "range of all bags"}


def scorecard_entries(points: Sequence[Point], resamples: int, seed: int) -> list[Entry]:
    """An entry for each point, word with its normalisation (as `role`) and metric; none of points without a scorecard.

    The range of all bags is that of the test set, not of a resample.

    Raises:
        UserError: a damaged table of a run.
    """
    entries = []
    for point in points:
        runs = [run for run in point.runs if (run.directory / FILE).is_file() and run.held_out is not None]
        tested = {run.directory: run.held_out for run in runs if run.held_out is not None}
        draws = CaseDraws(tested, resamples, seed)
        values: dict[tuple[str, str], list[float | None]] = {}
        drawn: dict[tuple[str, str], list[np.ndarray | None]] = {}
        for directory, held_out in tested.items():
            for name, metric, owners, score in word_scores(directory, held_out):
                [value] = score(np.ones((1, len(owners))))
                values.setdefault((name, metric), []).append(float(value) if np.isfinite(value) else None)
                drawn.setdefault((name, metric), []).append(draws.scores(directory, owners, score))
        entries += [entry_of(point, *key, found, drawn[key]) for key, found in values.items()]
    return entries


def word_scores(directory: Path, tested: HeldOut) -> Iterator[tuple[str, str, np.ndarray, Weighted]]:
    """Word with its normalisation, metric, owners (N,) and the metric as a function of their weights, of one run."""
    table = said_of_instances(directory / "instances.parquet", tested)
    if table is None:
        return
    attention, said, bags = (torch.tensor(table[name].to_numpy()) for name in ("teacher", "student", "owner"))
    known, positive = table.label.to_numpy() >= 0, positive_bags(directory, tested)
    owners, labels = table.owner.to_numpy()[known], table.label.to_numpy()[known] > 0
    for word, how, column in words(attention, said, bags):
        scores = column.numpy()[known]
        rows = binary_rows(owners, labels, scores, scores)
        for metric in RANKED:
            found = None if rows is None else ranked_instances(rows, metric, positive)
            if found is not None:
                yield f"{word}, {NORMALISED[how]}", metric, *found


def said_of_instances(path: Path, tested: HeldOut) -> pd.DataFrame | None:
    """`teacher`, its attention or else its score, `student`, `label`, `owner` of each instance; None where lacking."""
    for name in ("attention", "teacher_score"):
        table = instance_table(path, [name, "student_prob"], tested)
        if table is not None:
            return table.rename(columns={name: "teacher", "student_prob": "student"})
    return None
