"""CSV tables that people write by hand: read as text, with the line numbers an error message needs."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import suggestion


def read_csv(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """All cells as stripped text, blank lines left out; the index is the line number in the file.

    Args:
        path: UTF-8, with a header line.
        columns: the columns it must have; others are kept.

    Raises:
        UserError: a missing, empty or malformed file, or a missing column.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with more cells than the header
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False, index_col=False
            )
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path}: not readable as a CSV table ({str(error).splitlines()[0]})") from error
    table.columns = table.columns.str.strip()
    for column in columns:
        if column not in table.columns:
            raise UserError(f"{path}: column {column!r} is missing; it has {', '.join(map(repr, table.columns))}")
    table = table.fillna("").apply(lambda cells: cells.str.strip())
    table.index = pd.RangeIndex(2, 2 + len(table))
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"{path}: the table has no lines below its header")
    return table


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV as text, checking that it has rows and known columns only."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"table {str(path)!r} does not exist") from error
    except (ValueError, OSError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise UserError(f"table {str(path)!r} is not a CSV: {str(error).strip()}") from error
    for name in table.columns:
        if name not in columns:
            raise UserError(
                f"table {str(path)!r} has an unknown column {name!r}{suggestion(name, columns)}; "
                f"known are {', '.join(columns)}"
            )
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"table {str(path)!r} has more cells in its rows than names in its first line")
    if table.empty:
        raise UserError(f"table {str(path)!r} has no rows")
    return table
