"""CSV tables that people write by hand: read as text, with the line numbers an error message needs."""

import codecs
import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

SEPARATORS = (",", ";", "\t")
"""Those of spreadsheets, too; the one most frequent in the header counts."""
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
            warnings.warn(f"{path}: column {name!r} is not read; did you mean {meant!r}?", stacklevel=2)
    table = pd.DataFrame(list(rows.values()), columns=header, index=list(rows), dtype=object)
    return table.loc[:, [name != "" for name in header]]


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
            if any(stripped := [cell.strip() for cell in cells]):
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
