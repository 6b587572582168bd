"""CSV tables that people write by hand: read as text, with the line numbers an error message needs."""

import codecs
import csv
import io
import re
import string
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

SEPARATORS = (",", ";", "\t")
"""Those of spreadsheets, too; the one most frequent in the header counts."""
PARTS = ("train", "val", "test")
"""Of a split; other tools name columns by them."""
INDEX = "(index)"
"""Name given to the nameless first column of a table of truth values by part, CLAM's `splits_K_bool.csv`."""
TRUTH = ("true", "false")
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00a0"
"""Spaces and joiners of no width, a byte order mark within the text, and the space that breaks no line."""
WHOLE = re.compile(r"(\d+)\.0*")
MISSPELT = 0.8
"""Similarity from which on a further column looks like an optional one misspelt."""


def read_table(path: str | Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """All cells as stripped text, blank lines left out; the index is the line number in the file.

    Further columns are kept and mean nothing; one that looks like a misspelt optional column is a warning.

    Args:
        path: text in UTF-8 or, with a byte order mark, UTF-16; with a header line, separated as in `SEPARATORS`.
        columns: the columns it must have.
        optional: the columns it may have.

    Raises:
        UserError: a missing, empty, undecodable or malformed file, a missing column, or one that occurs twice.
    """
    header, rows = _parse(_text(Path(path)), path)
    for name, count in Counter(header).items():
        if name and count > 1:
            raise UserError(f"{path}: column {name!r} occurs {count} times: rename or remove one of them")
    require_columns(header, columns, path)
    if not rows:
        raise UserError(f"{path}: the table has no lines below its header")
    for name in set(header).difference(columns, optional):
        for meant in closest(name, set(optional).difference(header), similarity=MISSPELT):
            if name.removeprefix(f"{meant}_").isdecimal():
                continue  # fold_0, fold_1: one of many, nobody's mistake
            warnings.warn(f"{path}: column {name!r} is not read; did you mean {meant!r}?", stacklevel=2)
    if header == ["", *PARTS] and all(cell.lower() in TRUTH for cells in rows.values() for cell in cells[1:]):
        header = [INDEX, *PARTS]
    table = pd.DataFrame(list(rows.values()), columns=header, index=list(rows), dtype=object)
    return table.loc[:, [name != "" for name in header]]


def by_part(table: pd.DataFrame, path: str | Path, column: str = "slide_id") -> pd.DataFrame:
    """A table with a column of ids for each part, as one with a line for each id; any other table as it is.

    CLAM writes `train,val,test`, and the same as truth values after the id (`splits_K_bool.csv`), TransMIL
    `train,train_label,val,...`, MIL_BASELINE `train_slide_path,train_label,...`.

    Args:
        table: as from `read_table`.
        path: of the file, for the message.
        column: name of the ids.

    Returns:
        `column`, `split`, and where the parts say them `label` and `feature_path` (the id is then its file name without
        suffix); the index is the line in the file, once for each part.

    Raises:
        UserError: a table of truth values without ids, or an id that is in no part or in several.
    """
    if INDEX in table:
        return _by_truth(table, path, column)
    ids = {part: name for part in PARTS for name in (part, f"{part}_slide_path") if name in table}
    if len(ids) < 2 or "split" in table or column in table:
        return table
    rows: list[dict[str, str | None]] = []
    lines: list[int] = []
    for part, name in ids.items():
        labels = table[f"{part}_label"] if f"{part}_label" in table else [None] * len(table)
        for line, cell, label in zip(table.index, table[name], labels, strict=True):
            if cell.lower() in TRUTH:
                raise UserError(
                    f"{path}: columns of true and false without ids: give CLAM's splits_K.csv as it wrote it"
                )
            if cell:
                is_path = name != part
                row = {column: PurePath(cell).stem if is_path else cell, "split": part, "label": label}
                rows.append({**row, "feature_path": cell if is_path else None})
                lines.append(int(line))
    long = pd.DataFrame(rows, columns=[column, "split", "label", "feature_path"], index=lines, dtype=object)
    return long.dropna(axis=1, how="all").fillna("")


def _by_truth(table: pd.DataFrame, path: str | Path, column: str) -> pd.DataFrame:
    """A table of ids and truth values by part, as one of ids and parts."""
    words = []
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        parts = [part for part in PARTS if row[part].lower() == "true"]
        if len(parts) != 1:
            which = " and ".join(parts) or "no part"
            raise UserError(f"{path}, line {line}: {row[INDEX]!r} is in {which}: one of {', '.join(PARTS)} is true")
        words += parts
    return pd.DataFrame({column: table[INDEX], "split": words}, index=table.index, dtype=object)


def bare(cell: str) -> str:
    """A cell without blanks around it, those included that nobody sees, such as come with text from web pages."""
    return cell.strip() if cell.isascii() else cell.strip(string.whitespace + INVISIBLE).strip().strip(INVISIBLE)


def undotted(cell: str) -> str:
    """`1` for `1.0`, as programs write whole numbers in a column with empty cells; any other text as it is."""
    number = WHOLE.fullmatch(cell)
    return number[1] if number else cell


def require_columns(found: Iterable[str], wanted: Iterable[str], path: str | Path) -> None:
    """UserError, beginning with the path, for a wanted column that was not found."""
    names = list(found)
    for column in wanted:
        if column not in names:
            raise UserError(f"{path}: column {column!r} is missing; it has {', '.join(map(repr, names))}")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not readable as a CSV table ({error.strerror})") from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text: save the table as CSV in UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}: not readable as a CSV table (it holds binary data): save the table as CSV in UTF-8")
    return text


def _parse(text: str, path: str | Path) -> tuple[list[str], dict[int, list[str]]]:
    """The header, and the cells of each line that is not blank, by the number of the line."""
    first, *_ = text.lstrip("\r\n").splitlines() or [""]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines: dict[int, list[str]] = {}
    start = 1
    try:
        for cells in reader:
            if any(stripped := [bare(cell) for cell in cells]):
                lines[start] = stripped
            start = reader.line_num + 1  # a quoted cell may hold line breaks
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: not readable as a CSV table ({error})") from error
    if not lines:
        raise UserError(f"{path}: not readable as a CSV table (it is empty)")
    header, *_ = lines.values()
    rows = {line: _fitted(cells, len(header), path, line) for line, cells in list(lines.items())[1:]}
    return header, rows


def _fitted(cells: list[str], width: int, path: str | Path, line: int) -> list[str]:
    """Cells of a row as many as the header has: missing ones are empty."""
    if any(cells[width:]):
        raise UserError(
            f"{path}, line {line}: not readable as a CSV table ({len(cells)} cells below {width} column names): "
            "put a cell that holds a separator in quotes"
        )
    return cells[:width] + [""] * (width - len(cells))


def read_results(path: Path, key: str) -> pd.DataFrame:
    """A table that a prediction wrote: ids, labels, decisions and remarks as text, the rest as numbers.

    Args:
        path: `slides.csv`, `segments.csv`.
        key: its column of ids.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such table.
    """
    names = pd.read_csv(path, nrows=0).columns
    if key not in names:
        raise ValueError(f"it has no column {key}")
    text = [name for name in names if name in (key, "label", "note", "warnings") or name.endswith("_decision")]
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
