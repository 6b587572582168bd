"""Cases as bags: all slides of a patient are encoded and aggregated as one, and shown slide by slide."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_results
from kd_mil.models.outputs import Prediction
from kd_mil.prediction.behind import Work, announced
from kd_mil.prediction.inputs import PredictionInput
from kd_mil.prediction.pipeline import Predictor, Rest, Row, blank_row, no_files

OF_SLIDES = ("slide_id", "tiles", "label", "warnings", "note")
"""Columns of the table of slides that say nothing of a case."""


@dataclass(frozen=True)
class CasePredictor(Predictor):
    """Predicts each case as one bag, as a method was trained with `data.bag_by=case`.

    `slides.csv` has a line for each slide, with what is said of its case; tables, heat maps and panels are of single
    slides, with the tiles of each. A case is predicted whole or, where one of its slides cannot be read, not at all.
    """

    _slides: dict[str, list[PredictionInput]] = field(default_factory=dict)
    """Of each case."""
    _begun: set[str] = field(default_factory=set)
    """Cases that were asked about."""
    _rows: dict[str, Row] = field(default_factory=dict)
    _failed: dict[str, Exception] = field(default_factory=dict)
    """By case."""

    def run(self, inputs: Sequence[PredictionInput]) -> list[Row]:
        """As of slides; `cases.csv` beside `slides.csv` has a line for each case.

        Raises:
            UserError: no list says whose the slides are.
        """
        for item in inputs:
            self._slides.setdefault(item.case_id, []).append(item)
        if all(item.case_id == item.slide_id for item in inputs):
            raise UserError("bag_by=case: nobody says whose the slides are: give their list a column case_id")
        try:
            return super().run(inputs)
        finally:
            write_cases_of_slides(self.out)

    def part_name(self, item: PredictionInput) -> str:
        return item.case_id

    def facts_of(self, item: PredictionInput) -> list[Any]:
        """Those of all slides of its case: another slide changes what is said of this one."""
        return [item.case_id, *([one.slide_id, *one.facts()] for one in self._slides[item.case_id])]

    def named(self, item: PredictionInput) -> Row:
        return {"slide_id": item.slide_id, "case_id": item.case_id}

    def _computed(self, item: PredictionInput, begun: Work) -> Rest:
        """The first slide of a case computes, and writes, those of the others; the fault of one is that of all."""
        case = item.case_id
        if case in self._failed:
            raise self._failed[case]
        if case in self._begun:
            return partial(self._row_of, item)
        self._begun.add(case)
        with self._failing(case):
            rest = self._rest_of(case, begun)
        return partial(self._row_of, item, rest)

    def _row_of(self, item: PredictionInput, rest: Callable[[], dict[str, Row]] | None = None) -> Row:
        """The row of a slide, whose case is written first by the slide that computed it."""
        if rest is not None:
            with self._failing(item.case_id):
                self._rows.update(rest())
        if item.case_id in self._failed:
            raise self._failed[item.case_id]
        return self._rows[item.slide_id]

    @contextmanager
    def _failing(self, case: str) -> Iterator[None]:
        """Note what is raised as the fault of a case."""
        try:
            yield
        except Exception as error:
            self._failed[case] = error
            raise

    def _rest_of(self, case: str, begun: Work) -> Callable[[], dict[str, Row]]:
        """Compute a case; what is left writes the files of its slides, and knows their rows."""
        slides = self._slides[case]
        facts = self.facts_of(slides[0])
        known = {slide.slide_id: self.ledger.finished(slide.slide_id, facts) for slide in slides}
        if None not in known.values():
            return lambda: {name: row for name, row in known.items() if row is not None}
        opened = {slide.slide_id: slide.open() for slide in slides}
        total, rests, first = sum(one.total for one in opened.values()), dict[str, Rest](), 0
        *others, last = (one.batches for one in opened.values())
        said = self.said_of(case, total, chain(*others, announced(last, begun))) if total else {}
        for name, one in opened.items():
            row, write = blank_row(name, one), no_files
            if one.total:
                row, write = self.shown(name, one, part_of(said, slice(first, first + one.total)))
            rests[name] = partial(self.recorded, name, facts, row, write)
            first += one.total
        return lambda: {name: rest() for name, rest in rests.items()}


def part_of(said: dict[str, Prediction], rows: slice) -> dict[str, Prediction]:
    """What is said of a bag, and of some of its instances; the spread of an ensemble stays."""
    part = copy.copy(said)
    part.update({role: prediction.of_instances(rows) for role, prediction in said.items()})
    return part


def write_cases_of_slides(out: Path) -> None:
    """Write `cases.csv` from `slides.csv`: `case_id`, how many slides have tissue, `tiles`, and what is said of it."""
    if not (out / "slides.csv").is_file():
        return
    table = read_results(out / "slides.csv", "slide_id")
    table = table[table["note"].isna()]
    cases = table.groupby("case_id", sort=False)
    counted = pd.DataFrame({"slides": cases.size(), "tiles": cases["tiles"].sum()})
    said = cases.first().drop(columns=[name for name in OF_SLIDES if name in table and name != "slide_id"])
    with atomic_path(out / "cases.csv") as temporary:
        counted.join(said.drop(columns="slide_id")).reset_index().to_csv(temporary, index=False)
