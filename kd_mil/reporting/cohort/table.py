"""A cohort: what a model says of slides or cases, and their labels.

cohort = with_labels(read_predictions(Path("predictions")), labels)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_json, read_metrics, read_record
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import read_table
from kd_mil.evaluation.statistics.pooling import Pooling, cases_of, pooled_labels, pooled_probs, pooled_words
from kd_mil.reporting.predictions import held_out, probabilities

MODEL = "model.json"
"""What `kd_mil.predict` says of the model, beside `slides.csv`."""


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


def read_predictions(folder: Path) -> Cohort:
    """What `kd_mil.predict` wrote into a folder, or a run on bags says of its test part.

    Raises:
        UserError: no such folder, or a damaged file in it.
    """
    if (folder / "slides.csv").is_file():
        return _predicted(folder)
    if (folder / "bags.csv").is_file():
        return _tested(folder)
    raise UserError(f"predictions={folder}: neither slides.csv of kd_mil.predict nor bags.csv of a run there")


def _predicted(folder: Path) -> Cohort:
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder / MODEL} is missing: predict again with this version, which writes it")
    model, table = read_json(folder / MODEL), read_table(folder / "slides.csv", ("slide_id",))
    try:
        names, point = tuple(map(str, model["class_names"])), str(model["operating_point"])
        slides, cases = dict(model["thresholds"]), dict(model.get("case_thresholds") or model["thresholds"])
        decides = str(model["decides"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / MODEL} is damaged: predict again with overwrite=true") from error
    notes = table["note"] if "note" in table else pd.Series("", index=table.index)
    left_out = {name: f"no prediction: {note}" for name, note in zip(table["slide_id"], notes, strict=True) if note}
    table = table[notes == ""]
    probs = class_probs(table, tuple(slides), names, folder / "slides.csv")
    ids = table["slide_id"].tolist()
    whose = table["case_id"].tolist() if "case_id" in table else list(ids)  # of cases that were predicted as bags
    return Cohort(ids, names, probs, slides, cases, decides, point, cases=whose, left_out=left_out)


def _tested(folder: Path) -> Cohort:
    metrics, record = read_metrics(folder / "metrics.json"), read_record(folder / "run.json")
    table, tested = read_table(folder / "bags.csv", ("bag_id", "label")), held_out(folder)
    labels = table["label"].astype(int).to_numpy()
    roles = list(dict.fromkeys(key.split("/")[1] for key in metrics if key.startswith("test/")))
    names = _class_names(folder, table, roles)
    probs = class_probs(table, roles, names, folder / "bags.csv")
    thresholds = {role: _or_half(metrics.get(f"test/{role}/bag_threshold")) for role in probs}
    of_cases = {role: _or_half(metrics.get(f"test/{role}/case_threshold"), thresholds[role]) for role in probs}
    decides = [*str(record.get("monitor")).split("/"), ""][1]
    ids = table["bag_id"].tolist()
    return Cohort(
        ids,
        names,
        probs,
        thresholds,
        of_cases,
        decides if decides in probs else next(iter(probs)),
        "youden",
        unit="bag",
        labels=labels,
        cases=list(ids) if tested is None else tested.cases,
    )


def _class_names(folder: Path, table: pd.DataFrame, roles: Sequence[str]) -> tuple[str, ...]:
    """Of more than two classes by the columns, of two by the split file of the run; `0` and `1` without one."""
    for role in roles:
        names = [name.removeprefix(f"{role}_prob_") for name in table if name.startswith(f"{role}_prob_")]
        if len(names) > 2:
            return tuple(names)
    known = {"0": "0", "1": "1"}
    if (folder / "splits.csv").is_file():
        splits = read_table(folder / "splits.csv", ("bag_id",))
        name_of = dict(zip(splits["bag_id"], splits["label"], strict=True)) if "label" in splits else {}
        known |= {
            index: name_of[bag] for bag, index in zip(table["bag_id"], table["label"], strict=True) if bag in name_of
        }
    return known["0"], known["1"]


def _or_half(value: float | None, otherwise: float = 0.5) -> float:
    return otherwise if value is None else value


def class_probs(
    table: pd.DataFrame, roles: Sequence[str], class_names: Sequence[str], path: Path
) -> dict[str, np.ndarray]:
    """Probabilities (N, C) of each role from the columns `{role}_prob`, or `{role}_prob_{class}` for more than two.

    Raises:
        UserError: a cell that is no number in [0, 1].
    """
    found = {}
    for role in roles:
        names = [f"{role}_prob"] if len(class_names) == 2 else [f"{role}_prob_{name}" for name in class_names]
        if not set(names) <= set(table):
            continue
        columns = np.stack([probabilities(table[name], path) for name in names], 1)
        found[role] = np.concatenate([1 - columns, columns], 1) if len(names) == 1 else columns
    if not found:
        raise UserError(f"{path}: no column of probabilities, such as student_prob")
    return found


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
    """The table that all numbers can be computed from: id, `case_id`, `label`, probabilities, decisions, groups."""
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
    extra = {name: cohort.groups[name].tolist() for name in cohort.groups if name not in columns}
    return pd.DataFrame(columns | extra)
