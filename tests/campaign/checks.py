"""What is right about a result: values, one line in a table, one line of refusal, a warning."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.campaign.cases import Check, Result


def judged(check: Check, result: Result) -> list[str]:
    """Complaints of a check; one that cannot look, as where a command wrote nothing, has a complaint, too."""
    try:
        return check(result)
    except Exception as error:
        return [f"cannot be checked: {type(error).__name__}: {error}"[:300]]


def everything(*checks: Check) -> Check:
    return lambda result: [line for check in checks for line in check(result)]


def either(*checks: Check) -> Check:
    """Right where one of them has nothing to complain of."""

    def check(result: Result) -> list[str]:
        complaints = [judged(one, result) for one in checks]
        return [] if any(not lines for lines in complaints) else [" / ".join(lines[0] for lines in complaints)]

    return check


def done(item: str, **wanted: Any) -> Check:
    """Extracted, with these values: `tiles`, `mpp` (of the slide), `tumour` (sum of fractions), `first` (x, y)."""

    def check(result: Result) -> list[str]:
        if not result.is_done(item):
            return [f"not done: {result.failure_of(item) or result.last_line}"]
        if result.command != "extract":
            return []
        store = result.store(item)
        coords = store["coords"]
        found: dict[str, Any] = {
            "tiles": len(coords),
            "mpp": float(store["@kd_mil_slide_mpp"]),
            "tumour": float(store["tumour_fraction"].sum()) if "tumour_fraction" in store else None,
            "first": tuple(coords[0].tolist()) if len(coords) else None,
            "side": int(store["@patch_size_level0"]),
            "edge": float(store["tissue_fraction"][coords[:, 0] == coords[:, 0].max()].mean()) if len(coords) else None,
        }
        return [f"{key} {found[key]}, not {value}" for key, value in wanted.items() if not _same(found[key], value)]

    return check


def predicted(item: str, tiles: int | None = None, **columns: Any) -> Check:
    """Predicted, with so many instances, and these values in every line of its table (`x` and `y`: of the first).

    Of what `export` wrote for CLAM, the number of instances alone is looked at.
    """

    def check(result: Result) -> list[str]:
        if not result.is_done(item):
            return [f"not done: {result.failure_of(item) or result.last_line}"]
        if result.command == "export":
            return _exported(result.out / "pt_files" / f"{item}.pt", tiles)
        path = result.out / "instances" / f"{item}.csv"
        if not path.is_file():
            return ["no table of instances"]
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        complaints = [] if tiles in (None, len(rows)) else [f"{len(rows)} instances, not {tiles}"]
        if not all(math.isfinite(float(row["model_prob"])) for row in rows):
            complaints.append("a probability is not finite")
        for name, value in columns.items():
            if rows and not _same(float(rows[0][name]), value):
                complaints.append(f"{name} {rows[0][name]}, not {value}")
        return complaints

    return check


def _exported(path: Path, tiles: int | None) -> list[str]:
    features = torch.load(path, weights_only=True)
    complaints = [] if tiles in (None, len(features)) else [f"{len(features)} instances, not {tiles}"]
    return complaints if features.isfinite().all() else [*complaints, "a feature is not finite"]


def listed(item: str, *words: str) -> Check:
    """Not done, and listed in a table with one line in which all words (regular expressions) occur."""

    def check(result: Result) -> list[str]:
        line = result.failure_of(item)
        if line is None:
            return [
                f"done, or in no table: {result.last_line}"
                if result.rows_of(item)
                else f"in no table: {result.last_line}"
            ]
        if "\n" in line.strip():
            return [f"more than one line: {line!r}"]
        return [f"the line lacks {word!r}: {line}" for word in words if not re.search(word, line, re.IGNORECASE)]

    return check


def refused(*words: str) -> Check:
    """The command ended with exit code 2 and one line, in which all words occur, and wrote nothing."""

    def check(result: Result) -> list[str]:
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        if result.code != 2 or len(lines) != 1:
            return [f"not refused with one line: exit code {result.code}, {result.last_line}"]
        return [
            f"the line lacks {word!r}: {lines[0]}" for word in words if not re.search(word, lines[0], re.IGNORECASE)
        ]

    return check


def warned(*words: str) -> Check:
    """One warning, or one remark in a table, holds all words."""

    def check(result: Result) -> list[str]:
        printed = (result.stderr + result.stdout).splitlines()
        lines = [line for line in printed if "warning" in line.lower()] + result.remarks()
        for line in lines:
            if all(re.search(word, line, re.IGNORECASE) for word in words):
                return []
        return [f"no warning with {', '.join(words)}"]

    return check


def says(*words: str) -> Check:
    """All words occur in what was printed."""
    return lambda result: [
        f"does not say {word!r}: {result.last_line}" for word in words if not re.search(word, result.printed, re.I)
    ]


def says_not(*words: str) -> Check:
    """None of the words occurs in what was printed."""
    return lambda result: [f"says {word!r}" for word in words if re.search(word, result.printed, re.I)]


def exits(code: int) -> Check:
    return lambda result: [] if result.code == code else [f"exit code {result.code}, not {code}: {result.last_line}"]


def cell(table: str, item: str, **wanted: str) -> Check:
    """Cells of a row of a table in the output folder."""

    def check(result: Result) -> list[str]:
        rows = [row for row in result.rows_of(item) if row[""] == table]
        if not rows:
            return [f"no row of {item!r} in {table}: {result.last_line}"]
        return [
            f"{table}: {key} is {rows[0].get(key)!r}, not {value!r}"
            for key, value in wanted.items()
            if rows[0].get(key) != value
        ]

    return check


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, range):
        return found is not None and wanted.start <= found < wanted.stop
    if isinstance(wanted, float):
        return found is not None and bool(np.isclose(found, wanted, rtol=0.01, atol=0.01))
    return bool(found == wanted)
