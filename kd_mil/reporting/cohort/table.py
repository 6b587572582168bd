"""A cohort: what a model says of slides or cases, and their labels.

cohort = with_labels(read_predictions(Path("predictions")), labels)  # of `reading`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.evaluation.statistics.pooling import Pooling, cases_of, pooled_labels, pooled_probs, pooled_words


@dataclass(frozen=True)
class Cohort:
    """N slides or cases with predictions; labels come with `with_labels`, or from a run."""

    ids: list[str]
    class_names: tuple[str, ...]
    probs: Mapping[str, np.ndarray]
    """By role, (N, C) float64."""
    thresholds: Mapping[str, float]
    """By role, probability from which on the second of two classes is decided; chosen on validation."""
    case_thresholds: Mapping[str, float]
    """The same of cases, where validation said; else as `thresholds`."""
    decides: str
    """The role whose decision counts."""
    operating_point: str
    """Name of the rule by which the thresholds were chosen."""
    case_pooling: Pooling | None = None
    """How cases were pooled when their thresholds were chosen; None = not said."""
    unit: str = "slide"
    labels: np.ndarray | None = None
    """(N,) int64."""
    cases: list[str] = field(default_factory=list)
    """Case of each row; itself where nobody says."""
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Further columns of the table of labels, as text."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why, by the id of what was not evaluated."""

    def decided(self, role: str) -> np.ndarray:
        """Index (N,) of the class that a role decides for."""
        probs = self.probs[role]
        return (probs[:, 1] >= self.thresholds[role]).astype(int) if probs.shape[1] == 2 else probs.argmax(1)

    def part(self, rows: np.ndarray) -> "Cohort":
        """Some of the rows, (N,) bool."""
        kept = np.flatnonzero(rows)
        return replace(
            self,
            ids=[self.ids[index] for index in kept],
            probs={role: values[kept] for role, values in self.probs.items()},
            labels=None if self.labels is None else self.labels[kept],
            cases=[self.cases[index] for index in kept],
            groups=self.groups.iloc[kept] if len(self.groups) else self.groups,
        )


def with_labels(cohort: Cohort, table: pd.DataFrame, path: str) -> Cohort:
    """The slides that have a label, with case and further columns; the others are `left_out`.

    Args:
        cohort: without labels, or of a run, whose labels it keeps where the table has none.
        table: `slide_id` and, where there are, `label`, `case_id` and others, as text by line of the file.
        path: of the file, for messages.

    Raises:
        UserError: a label that is no class of the model, or no slide with a label.
    """
    rows = table.set_index("slide_id", drop=False)
    lines = dict(zip(table["slide_id"], table.index, strict=True))
    labels, left_out = [], dict(cohort.left_out)
    for position, name in enumerate(cohort.ids):
        text = rows.at[name, "label"] if name in rows.index and "label" in rows else ""
        if text:
            labels.append(label_index(text, cohort.class_names, f"{path}, line {lines[name]}"))
        elif cohort.labels is not None and name in rows.index:
            labels.append(int(cohort.labels[position]))
        else:
            labels.append(-1)
            left_out[name] = "no label"
    found = np.array(labels, dtype=np.int64)
    if not (found >= 0).any():
        raise UserError(f"{path}: none of the {len(found)} predicted slides has a label there")
    groups = rows.reindex(cohort.ids).drop(columns=["slide_id", "label", "case_id"], errors="ignore").fillna("")
    cases = list(cohort.cases)
    if "case_id" in rows:
        cases = [rows.at[name, "case_id"] or name if name in rows.index else name for name in cohort.ids]
    whole = replace(cohort, labels=found, cases=cases, groups=groups, left_out=left_out)
    return whole.part(found >= 0)


def label_index(text: str, class_names: Sequence[str], where: str) -> int:
    """Index of a class by its name, or by its number where no class is called so.

    Raises:
        UserError: neither.
    """
    if text in class_names:
        return list(class_names).index(text)
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    raise UserError(f"{where}: the model knows no class {text!r}; {did_you_mean(text, list(class_names))}")


def by_case(cohort: Cohort, how: Pooling) -> Cohort:
    """The cases of a cohort: one row each, with the thresholds of cases; `groups` those of its slides."""
    cases = cases_of(cohort.cases)
    assert cohort.labels is not None
    return replace(
        cohort,
        unit="case",
        ids=cases.names,
        cases=list(cases.names),
        probs={role: pooled_probs(values, cases, how) for role, values in cohort.probs.items()},
        thresholds=cohort.case_thresholds,
        labels=pooled_labels(cohort.labels, cases),
        groups=pd.DataFrame({name: pooled_words(cohort.groups[name].tolist(), cases) for name in cohort.groups}),
    )


def evaluated_rows(cohort: Cohort) -> pd.DataFrame:
    """The table that all numbers can be computed from: id, `case_id`, `label`, probabilities, decisions, groups.

    A group called like one of the others has `_given` behind its name.
    """
    assert cohort.labels is not None
    columns: dict[str, Any] = {f"{cohort.unit}_id": cohort.ids}
    if cohort.unit != "case":
        columns["case_id"] = cohort.cases
    columns["label"] = [cohort.class_names[label] for label in cohort.labels]
    for role, probs in cohort.probs.items():
        if probs.shape[1] == 2:
            columns[f"{role}_prob"] = probs[:, 1]
        else:
            columns |= {f"{role}_prob_{name}": probs[:, c] for c, name in enumerate(cohort.class_names)}
        columns[f"{role}_decision"] = [cohort.class_names[index] for index in cohort.decided(role)]
    extra = {f"{name}_given" if name in columns else name: cohort.groups[name].tolist() for name in cohort.groups}
    return pd.DataFrame(columns | extra)
