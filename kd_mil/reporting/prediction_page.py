"""One HTML page over predicted slides: a table to sort and filter, and the panel of a slide at a click or a key.

Panels are scripts beside the page (`kd_mil.prediction.panels`), loaded one at a time, so that a page over a thousand
slides opens at once, from a disk as from a server.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.tables import read_results
from kd_mil.reporting.html import TEMPLATES

MOST_ROUNDS = 5
"""Of the page: while other processes go on, its table has news each time, and they will write the page themselves."""


class Columns:
    """Which columns of a table of predictions say what."""

    def __init__(self, table: pd.DataFrame, key: str) -> None:
        self.key = key
        decisions = [name for name in table.columns if name.endswith("_decision")]
        self.decision = decisions[-1] if decisions else None
        self.label = "label" if "label" in table else None
        self.comparable = False
        if self.decision is not None and self.label is not None:  # labels may be of other names than the classes
            self.comparable = bool(set(table[self.decision].dropna()) & set(table[self.label].dropna()))
        self.remarks = [name for name in ("warnings", "note") if name in table]
        named = {key, self.decision, self.label, *self.remarks}
        self.others = [name for name in table.columns if name not in named]

    @property
    def shown(self) -> list[str]:
        """In the order of the page."""
        first = [self.key, *filter(None, (self.decision, self.label))]
        return [*first, *self.others, "look at"]


def write_prediction_page(out: Path, table: str, key: str, title: str, colors: Sequence[Sequence[int]]) -> Path:
    """Write `out/index.html` over a table there; where the table changes meanwhile, again.

    Args:
        out: folder of the predictions, with `panels/`.
        table: name of the CSV file.
        key: its column of ids, which name the panels.
        title: heading.
        colors: (256, 4) of the scores 0 to 1: red, green, blue, alpha, each 0 to 255.
    """
    content = (out / table).read_bytes()
    for _ in range(MOST_ROUNDS):
        page = prediction_page(read_results(out / table, key), key, title, colors, out / "panels")
        with atomic_path(out / "index.html") as temporary:
            temporary.write_text(page, encoding="utf-8", errors="replace")
        written, content = content, (out / table).read_bytes()
        if content == written:
            break
    return out / "index.html"


def prediction_page(table: pd.DataFrame, key: str, title: str, colors: Sequence[Sequence[int]], panels: Path) -> str:
    """The page; of rows without a panel in the folder `panels` only the line."""
    columns = Columns(table, key)
    there = {path.stem for path in panels.glob("*.js")}
    rows = [page_row(row, columns, there, panels.name) for row in table.to_dict("records")]
    choices = [] if columns.decision is None else sorted({str(name) for name in table[columns.decision].dropna()})
    return TEMPLATES.get_template("prediction.html").render(
        title=title,
        columns=[name.replace("_", " ") for name in columns.shown],
        rows=rows,
        decisions=choices,
        labelled=columns.label is not None,
        facts=facts(rows),
        colors=np.asarray(colors).ravel().tolist(),
    )


def page_row(row: Mapping[str, Any], columns: Columns, there: set[str], folder: str) -> dict[str, Any]:
    """One line: its cells as (sorting key, text), the address of its panel, and what it can be filtered by."""
    name = str(row[columns.key])
    remarks = "; ".join(str(row[column]) for column in columns.remarks if is_known(row[column]))
    said = [str(row[one]) if one and is_known(row[one]) else "" for one in (columns.decision, columns.label)]
    names = [name for name in columns.shown if name not in (columns.key, "look at")]
    return {
        "name": name,
        "panel": quote(f"{folder}/{name}.js") if name in there else None,
        "cells": [cell(row[column]) for column in names],
        "remarks": remarks,
        "decision": said[0],
        "wrong": columns.comparable and all(said) and said[0] != said[1],
    }


def cell(value: Any) -> tuple[str, str]:
    """What a cell is sorted by, and its text."""
    if not is_known(value):
        return "-1", ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.9g}", f"{value:.3f}"
    text = f"{value:.0f}" if isinstance(value, float) else str(value)
    return text, text


def is_known(value: Any) -> bool:
    """Whether a cell of the table holds something."""
    return not pd.isna(value)


def facts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands above the table."""
    lines = [f"{len(rows)} in all"]
    decided: dict[str, int] = {}
    for row in rows:
        decided[row["decision"]] = decided.get(row["decision"], 0) + bool(row["decision"])
    lines += [f"{count} {name}" for name, count in sorted(decided.items()) if count]
    if doubtful := sum(bool(row["remarks"]) for row in rows):
        lines.append(f"{doubtful} to look at")
    if wrong := sum(row["wrong"] for row in rows):
        lines.append(f"{wrong} not decided as labelled")
    return lines
