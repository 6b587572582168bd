"""The published tables in `results.yaml`, and the runs that stand beside each of their numbers.

tables = tables_of("weno", "1"); tables[0].cells("small", seeds=[0])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean

FILE = Path(__file__).parent / "results.yaml"
SCALES = ("paper", "small")
NOT_FOUND = "no published value found"


class Cell(NamedTuple):
    """One number of a table."""

    row: str
    column: str
    published: float | None
    """In [0, 1]; None where the paper prints none."""
    metric: str
    """`ROLE/NAME` among the test metrics of a run; empty where nothing can be run."""
    runs: list[list[str]]
    """Settings of each run, whose mean stands beside the number."""
    no_data: str
    """Why there are none; empty where there are."""
    unpublished: str
    """Why no number is published; empty where one is."""


@dataclass(frozen=True)
class PublishedTable:
    """A table or figure of a paper, as `results.yaml` has it."""

    paper: str
    name: str
    content: Mapping[str, Any]

    @property
    def caption(self) -> str:
        """What it shows."""
        return str(self.content["caption"])

    @property
    def source(self) -> str:
        """Where its numbers stand."""
        page = self.content.get("page")
        return f"{self.content['source']}, p. {'unknown' if page is None else page}"

    def needs(self, scale: str) -> list[str]:
        """Folders below `paths.data_dir`, of which one must be there."""
        return list(self.content["scales"].get(scale, {}).get("needs", []))

    def cells(self, scale: str, seeds: Sequence[int]) -> list[Cell]:
        """All numbers, row by row, each with its runs: of every seed, in every run of its column."""
        columns: Mapping[str, list[list[str]]] = self.content["columns"]
        found = []
        for name, row in self.content["rows"].items():
            for index, (column, alternatives) in enumerate(columns.items()):
                number = row["published"][index]
                published = None if number is None else number / (100 if self.content.get("percent") else 1)
                why = row.get("no_data") or ("" if scale in self.content["scales"] else f"nothing at scale={scale}")
                runs = [] if why else self._runs(row, alternatives, scale, seeds)
                gap = self.content.get("unpublished", NOT_FOUND) if published is None else ""
                found.append(Cell(name, column, published, row.get("metric", ""), runs, why, gap))
        return found

    def _runs(
        self, row: Mapping[str, Any], alternatives: Sequence[Sequence[str]], scale: str, seeds: Sequence[int]
    ) -> list[list[str]]:
        how = self.content["scales"][scale]
        renamed = how.get("rename", {})
        runs = []
        for column, seed in product(alternatives, seeds):
            pairs = (text.partition("=") for text in column)
            own = [f"{renamed.get(key, key)}={value}" for key, _, value in pairs]
            runs.append(last_of_each([*how["settings"], *row["settings"], *row.get(scale, []), *own, f"seed={seed}"]))
        return runs


def last_of_each(settings: Sequence[str]) -> list[str]:
    """Settings without those that a later one replaces; the experiment first."""
    last = {text.partition("=")[0]: text for text in settings}
    return sorted(last.values(), key=lambda text: not text.startswith("experiment="))


def published() -> dict[str, dict[str, PublishedTable]]:
    """All tables by paper and name."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {
        paper: {str(name): PublishedTable(paper, str(name), table) for name, table in entry["tables"].items()}
        for paper, entry in content.items()
    }


def title_of(paper: str) -> str:
    """The paper's name and year, and a note where its numbers need one."""
    entry: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))[paper]
    return f"{entry['title']}{'' if 'note' not in entry else ': ' + entry['note']}"


def tables_of(paper: str, table: str) -> list[PublishedTable]:
    """The tables of a paper that are called `table`, or begin with it (`1`: 1a and 1b; `all`: every one).

    Raises:
        UserError: no such paper or table.
    """
    everything = published()
    one_of("paper", paper, everything)
    known = everything[paper]
    if table == "all":
        return list(known.values())
    found = [known[table]] if table in known else []
    found = found or [one for name, one in known.items() if name.startswith(table) and not name[len(table)].isdigit()]
    if not found:
        raise UserError(f"table={table}: {did_you_mean(table, list(known))}")
    return found
