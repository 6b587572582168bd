"""What a run predicted for its test bags, their instances, or its test images, and the cases that group them.

Ids are text as they were written: `001` is not `1`, and `NA` is a name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pyarrow import parquet

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.core.tables import read_table
from kd_mil.evaluation.statistics.weighted_scores import PredictedRows, binary_rows, class_rows

TABLES = {"bag": "bags.csv", "image": "images.csv"}
"""What a test set is made of, and the table that has a row for each."""
CASES = "cases.csv"
"""A row for each case of the bags, where a run reports cases."""


class HeldOut(NamedTuple):
    """The test bags or images of a run."""

    unit: str
    """`bag` or `image`."""
    ids: list[str]
    cases: list[str]
    """Case of each; itself where a run says nothing of cases."""
    known: bool
    """Whether the run says which cases they are of."""

    @property
    def resampled(self) -> str:
        """What is drawn for an interval, in words."""
        if len(set(self.cases)) < len(self.ids):
            return f"cases, all {self.unit}s of a case together"
        return f"{self.unit}s" if self.known else f"{self.unit}s (the run does not say of which cases)"


def held_out(directory: Path) -> HeldOut | None:
    """The test set of a run, with cases from its table or from `splits.csv`; None without a table of predictions.

    Raises:
        UserError: a damaged table, or a bag that `splits.csv` does not list.
    """
    for unit, name in TABLES.items():
        if (directory / name).is_file():
            table = read_table(directory / name, (f"{unit}_id",))
            ids = table[f"{unit}_id"]
            cases = table["case_id"] if "case_id" in table else listed_cases(directory / "splits.csv", unit, ids)
            known = cases is not None
            cases = ids if cases is None else cases.where(cases != "", ids)
            return HeldOut(unit, ids.tolist(), cases.tolist(), known)
    return None


def listed_cases(path: Path, unit: str, ids: pd.Series) -> pd.Series | None:
    """Case of each id by the split file of a run; None without such a file, or in one without cases."""
    if not path.is_file():
        return None
    splits = read_table(path, (f"{unit}_id",))
    if "case_id" not in splits:
        return None
    cases = ids.map(dict(zip(splits[f"{unit}_id"], splits["case_id"], strict=True)))
    for missing in ids[cases.isna()]:
        raise UserError(f"{path}: {unit} {missing!r} was tested, but is not listed there")
    return cases


def predicted_rows(
    directory: Path, level: str, role: str, tested: HeldOut, threshold: float = 0.5
) -> PredictedRows | None:
    """What a role predicted at a level (`bag`, `instance`, `case`, `image`); None where that is not on file.

    Two classes are decided at the threshold.

    Raises:
        UserError: a damaged table.
    """
    if level == "instance":
        return instance_rows(directory / "instances.parquet", role, tested, "", threshold)
    path = directory / (CASES if level == "case" else TABLES[tested.unit])
    if level not in ("case", tested.unit) or not path.is_file():
        return None
    table, owners = read_table(path, ("label",)), np.arange(len(tested.ids))
    if level == "case":
        first = {case: index for index, case in reversed(list(enumerate(tested.cases)))}
        owners = table["case_id"].map(first).to_numpy()
    if (name := f"{role}_prob") in table:
        labels, probs = numbers(path, table["label"]) > 0, numbers(path, table[name])
        return binary_rows(owners, labels, probs, probs, threshold)
    names = [column.removeprefix(f"{name}_") for column in table if column.startswith(f"{name}_")]
    if len(names) < 2:
        return None
    probs = np.stack([numbers(path, table[f"{name}_{other}"]) for other in names], 1)
    words = names if tested.unit == "image" else [str(index) for index in range(len(names))]
    return class_rows(owners, table["label"].map({word: index for index, word in enumerate(words)}).to_numpy(), probs)


def positive_bags(directory: Path, tested: HeldOut) -> np.ndarray:
    """Whether each test bag (B,) is of a positive class, bool."""
    path = directory / TABLES[tested.unit]
    return numbers(path, read_table(path, ("label",))["label"]) > 0


def instance_rows(
    path: Path, role: str, tested: HeldOut, reading: str = "", threshold: float = 0.5
) -> PredictedRows | None:
    """Instances whose label is known; None for a method without instances, or without that reading.

    The scores of a reading are no probabilities: what they decide at 0.5 means nothing.
    """
    columns = [f"{role}_{reading}"] * 2 if reading else [f"{role}_prob", f"{role}_score"]
    table = instance_table(path, columns, tested)
    if table is None:
        return None
    table = table[table.label >= 0]
    probs, scores = (table[name].to_numpy(dtype=np.float64) for name in columns)
    return binary_rows(table.owner.to_numpy(), table.label.to_numpy() > 0, probs, scores, threshold)


def instance_table(path: Path, columns: Sequence[str], tested: HeldOut) -> pd.DataFrame | None:
    """`label`, the position `owner` (N,) int64 of each instance's bag among the test bags, and further columns.

    None for a method without instances, or without such columns.

    Raises:
        UserError: a damaged file, or a bag that was not tested.
    """
    if tested.unit != "bag" or not path.is_file():
        return None
    wanted = ["bag_id", "label", *dict.fromkeys(columns)]
    with readable(path):
        if not set(wanted) <= set(parquet.read_schema(path).names):
            return None
        table = pd.read_parquet(path, columns=wanted)
    index_of = {bag_id: index for index, bag_id in enumerate(tested.ids)}
    owners = table.bag_id.astype(str).str.strip().map(index_of)
    for unknown in table.bag_id[owners.isna()]:
        raise UserError(f"{path}: bag {unknown!r} is not in bags.csv: the tables are of two runs")
    return table.drop(columns="bag_id").assign(owner=owners.to_numpy(dtype=np.int64))


def image_values(directory: Path, role: str, name: str, tested: HeldOut) -> np.ndarray | None:
    """(N,) a score of each test image, such as `f1` of its pixels, NaN where undefined; None where not on file."""
    path = directory / TABLES["image"]
    if tested.unit != "image":
        return None
    table = read_table(path, ("image_id",))
    return numbers(path, table[f"{role}_{name}"]) if f"{role}_{name}" in table else None


def numbers(path: Path, cells: pd.Series) -> np.ndarray:
    """Cells as float64, empty ones as NaN."""
    try:
        return pd.to_numeric(cells.mask(cells == "")).to_numpy(dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{path}: column {cells.name!r} holds what is no number ({error})") from error


def probabilities(cells: pd.Series, path: Path) -> np.ndarray:
    """A column (N,) of numbers in [0, 1], whose index are the lines of the file; UserError for any other cell."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    for index in np.flatnonzero(~((values >= 0) & (values <= 1)))[:1]:
        cell = str(cells.iloc[index]) or "an empty cell"
        raise UserError(
            f"{path}, line {cells.index[index]}: column {cells.name!r} holds {cell}, which is no probability"
        )
    return values


def class_numbers(cells: pd.Series, count: int, path: Path) -> np.ndarray:
    """A column (N,) of whole numbers in [0, count), int64; the rest as in `probabilities`."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    for index in np.flatnonzero(~np.isin(values, np.arange(count)))[:1]:
        cell = str(cells.iloc[index]) or "an empty cell"
        raise UserError(
            f"{path}, line {cells.index[index]}: column {cells.name!r} holds {cell}, no class below {count}"
        )
    return values.astype(np.int64)
