"""Predictions as a cohort: those of a folder that `kd_mil.predict` wrote, or of a run on bags.

cohort = read_predictions(Path("predictions"))
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_json, read_metrics, read_record
from kd_mil.core.tables import read_table
from kd_mil.evaluation.statistics.pooling import POOLINGS, Pooling
from kd_mil.reporting.cohort.table import Cohort
from kd_mil.reporting.predictions import class_numbers, held_out, probabilities

MODEL = "model.json"
"""What `kd_mil.predict` says of the model, beside `slides.csv`."""
CONFIGURATION = ".hydra/config.yaml"
"""That of a run."""


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
    names, slides, cases, decides, point, pooling = _model(folder / MODEL)
    table = _once(read_table(folder / "slides.csv", ("slide_id",)), "slide_id", folder / "slides.csv")
    notes = table["note"] if "note" in table else pd.Series("", index=table.index)
    left_out = {name: f"no prediction: {note}" for name, note in zip(table["slide_id"], notes, strict=True) if note}
    table = table[notes == ""]
    probs = class_probs(table, tuple(slides), names, folder / "slides.csv")
    ids = table["slide_id"].tolist()
    whose = table["case_id"].tolist() if "case_id" in table else list(ids)  # of cases that were predicted as bags
    return Cohort(ids, names, probs, slides, cases, decides, point, pooling, cases=whose, left_out=left_out)


def _model(path: Path) -> tuple[tuple[str, ...], dict[str, float], dict[str, float], str, str, Pooling | None]:
    """Classes, thresholds of slides and of cases by role, who decides, operating point, pooling of cases."""
    model = read_json(path)
    try:
        names, decides = tuple(map(str, model["class_names"])), str(model["decides"])
        slides = {str(role): float(value) for role, value in model["thresholds"].items()}
        cases = {role: float((model.get("case_thresholds") or slides)[role]) for role in slides}
        if decides not in slides or len(names) < 2:
            raise ValueError(decides)
        pooling = model.get("case_pooling")
        if pooling not in (None, *POOLINGS):
            raise ValueError(pooling)
        return names, slides, cases, decides, str(model["operating_point"]), pooling
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: predict again with overwrite=true") from error


def _once(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    """A table by line in the file, in which nothing is listed twice; UserError for one that is."""
    for line, name in table[column][table[column].duplicated()].items():
        raise UserError(f"{path}, line {line}: {name!r} is listed twice")
    return table


def _tested(folder: Path) -> Cohort:
    metrics, record = read_metrics(folder / "metrics.json"), read_record(folder / "run.json")
    path, tested = folder / "bags.csv", held_out(folder)
    table = _once(read_table(path, ("bag_id", "label")), "bag_id", path)
    roles = list(dict.fromkeys(key.split("/")[1] for key in metrics if key.startswith("test/")))
    names = _class_names(folder, table, roles)
    probs = class_probs(table, roles, names, path)
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
        _pooling_of(folder, record),
        unit="bag",
        labels=class_numbers(table["label"], len(names), path),
        cases=list(ids) if tested is None else tested.cases,
    )


def _pooling_of(folder: Path, record: Mapping[str, Any]) -> Pooling | None:
    """How a run pooled the cases that it reported, as its configuration says, or else its overrides; None: not said."""
    given = [word.partition("=")[2] for word in record.get("overrides", []) if word.startswith("data.case_pooling=")]
    with suppress(OSError, ValueError, AttributeError, yaml.YAMLError):  # without it the overrides remain
        data = yaml.safe_load((folder / CONFIGURATION).read_text(encoding="utf-8")).get("data")
        given += [data.get("case_pooling")] if data.get("report_by") == "case" else []
    return next((pooling for pooling in POOLINGS if given[-1:] == [pooling]), None)


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
