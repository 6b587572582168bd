"""What a campaign is made of: odd inputs, and what is right about each."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py


@dataclass
class Result:
    """What a command did."""

    command: str
    folder: Path
    """Where it ran; `in/` holds the inputs, `out/` what it wrote."""
    code: int
    """Exit code; -9 where it was stopped for time."""
    stdout: str
    stderr: str
    seconds: float
    outside: list[str] = field(default_factory=list)
    """Files outside `out/` that it made, changed or removed."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def last_line(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing on stderr"

    @property
    def printed(self) -> str:
        return " ".join((self.stdout + "\n" + self.stderr).split())

    def rows(self) -> list[dict[str, str]]:
        """All rows of all tables directly in the output folder."""
        found = []
        for path in sorted(self.out.glob("*.csv")) if self.out.is_dir() else []:
            with path.open(newline="", encoding="utf-8") as file:
                found += [row | {"": path.name} for row in csv.DictReader(file) if None not in row]
        return found

    def rows_of(self, item: str) -> list[dict[str, str]]:
        return [row for row in self.rows() if item in (row.get("slide_id"), row.get("name"), row.get("image"))]

    def failure_of(self, item: str) -> str | None:
        """The line a table gives for something that could not be done."""
        lines = [text for row in self.rows_of(item) if _has_failed(row) and (text := _remark(row))]
        return lines[0] if lines else None

    def remarks(self) -> list[str]:
        """What tables say of what was done: its name, and a doubt."""
        done = [row for row in self.rows() if not _has_failed(row)]
        return [f"{row.get('slide_id') or row.get('name')}: {_remark(row)}" for row in done if _remark(row)]

    def is_done(self, item: str) -> bool:
        if self.command == "export":
            return any(self.out.glob(f"*/{_escaped(item)}.*"))
        return any(not _has_failed(row) for row in self.rows_of(item))

    def store(self, item: str) -> dict[str, Any]:
        """Arrays and attributes of a file that `extract` wrote."""
        paths = [self.out / "patches" / f"{item}_patches.h5", self.out / "features" / f"{item}.h5"]
        with h5py.File(next(path for path in paths if path.is_file()), "r") as file:
            content: dict[str, Any] = {name: file[name][()] for name in file}
            content |= {f"@{key}": value for key, value in file["coords"].attrs.items()}
            return content | {f"@{key}": value for key, value in file.attrs.items()}


Check = Callable[[Result], list[str]]
"""Complaints about a result; none where it is right."""


@dataclass(frozen=True)
class Case:
    """One odd input. Cases of a `batch` go through one command together, with good companions; others run alone."""

    name: str
    """Unique; the id of the slide in a batch."""
    kind: str
    """The kind of fault, as the table of the record names it."""
    write: Callable[[Path], Any]
    """Writes the input into a folder; in a batch of rows, returns its row of the list (a mapping)."""
    check: Check
    batch: str | None = None
    command: str = ""
    """Of a case that runs alone."""
    settings: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    """Commands (name, settings ...) that come first; `between` then changes the inputs."""
    between: Callable[[Path], Any] | None = None


def _remark(row: dict[str, str]) -> str:
    return row.get("message") or row.get("note") or row.get("error") or ""


def _has_failed(row: dict[str, str]) -> bool:
    """Told by the status; in tables without one, by whether there is something to say."""
    return row["status"] == "failed" if "status" in row else bool(_remark(row))


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def table_text(rows: Iterable[Mapping[str, object] | Sequence[object]], dialect: str = "unix", **form: Any) -> str:
    """Rows as CSV; the header is the union of their keys."""
    rows = [dict(row) for row in rows]  # type: ignore[arg-type]
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, dialect=dialect, **({"quoting": csv.QUOTE_MINIMAL} | form))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
