"""Where other tools keep labels, patients and folds of their slides, brought into the columns that are read here."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_table, require_columns

ALIASES = {"FILENAME": "slide_id", "slide": "slide_id", "bag_name": "slide_id", "PATIENT": "case_id"}
"""Names of STAMP and torchmil for columns of ours."""
FOLD = re.compile(r"fold_(\d+)")
"""A column of Patho-Bench: the part of each slide in one fold."""


@dataclass(frozen=True)
class LabelColumns:
    """What a table of labels does not say itself."""

    label: str | None = None
    """Column of the labels where it is not `label`; slides without a value are left out, as there."""
    clini: str | None = None
    """STAMP's clinical table, by `PATIENT`: its columns go to all slides of a patient."""
    fold: int | None = None
    """Which of the columns `fold_K` says train, val or test; None = the first."""


def fold_columns(table: pd.DataFrame) -> dict[int, str]:
    """The columns `fold_K` of a table by K, none where it has columns `split` or `fold` of its own."""
    if "split" in table or "fold" in table:
        return {}
    return {int(found[1]): name for name in table if (found := FOLD.fullmatch(name))}


def completed(table: pd.DataFrame, columns: LabelColumns, path: str | Path) -> pd.DataFrame:
    """A table of labels with our names, labels, and the parts of one fold.

    Args:
        table: as from `read_table`.
        columns: what it does not say itself.
        path: of the file, for messages.

    Raises:
        UserError: a column that is missing, a patient that the clinical table has twice or not at all, or a fold that
            the table does not have.
    """
    table = table.rename(columns={alias: name for alias, name in ALIASES.items() if name not in table})
    if columns.clini is not None:
        table = _with_patients(table, columns.clini, path)
    if columns.label is not None:
        require_columns(table, (columns.label,), columns.clini or path)
        table["label"] = table[columns.label]
        empty = int((table["label"] == "").sum())
        if empty:
            warnings.warn(f"{path}: {empty} slides without {columns.label!r} are left out", stacklevel=2)
        table = table[table["label"] != ""]
    folds = fold_columns(table)
    if folds:
        fold = min(folds) if columns.fold is None else columns.fold
        if fold not in folds:
            raise UserError(f"{path}: data.fold={fold}: the table has {', '.join(folds[key] for key in sorted(folds))}")
        table = table.assign(split=table[folds[fold]])
    return table


def _with_patients(table: pd.DataFrame, clini: str, path: str | Path) -> pd.DataFrame:
    """The slides with the columns of their patients; slides of patients without a line are left out, with a warning."""
    require_columns(table, ("case_id",), path)
    patients = read_table(clini, ()).rename(columns={"PATIENT": "case_id"})
    require_columns(patients, ("case_id",), clini)
    for line in patients.index[patients["case_id"].duplicated()]:
        raise UserError(f"{clini}, line {line}: patient {patients['case_id'][line]!r} is listed twice")
    new = patients.set_index("case_id")[[name for name in patients if name not in table]]
    known = table["case_id"].isin(new.index)
    if not known.any():
        raise UserError(f"{path}: none of its patients, such as {table['case_id'].iloc[0]!r}, is in {clini}")
    if not known.all():
        warnings.warn(
            f"{path}: {int((~known).sum())} slides of patients that {clini} does not have: left out", stacklevel=3
        )
    return table[known].join(new, on="case_id")
