"""One page over an evaluated cohort, whole in itself: scores, confusion, curves, comparisons, and what was left out."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from kd_mil.core.atomic import atomic_path
from kd_mil.reporting.cohort.scores import ALL, ANALYTIC, Comparison, Score
from kd_mil.reporting.cohort.table import Cohort
from kd_mil.reporting.html import TEMPLATES

PAGE = "index.html"
LEFT_OUT = 50
"""Names on the page; all are in metrics.json."""


class Section(NamedTuple):
    """A table with a heading."""

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_cohort_page(
    out: Path,
    cohort: Cohort,
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    confusion: pd.DataFrame,
    figures: Mapping[str, Figure],
) -> Path:
    """Write `index.html` into the folder of an evaluation.

    Args:
        out: the folder.
        cohort: with labels.
        scores, comparisons, confusion: as in the tables beside the page.
        figures: by caption.
    """
    sections = [*score_sections(cohort, scores), *confusion_sections(cohort, confusion)]
    if comparisons:
        sections.append(comparison_section(comparisons))
    left_out = [f"{name}: {why}" for name, why in cohort.left_out.items()]
    page = TEMPLATES.get_template("cohort.html").render(
        title=f"{len(cohort.ids)} {cohort.unit}s against their labels",
        facts=facts(cohort),
        sections=sections,
        figures={caption: png_uri(figure) for caption, figure in figures.items()},
        left_out=left_out[:LEFT_OUT],
        more=max(0, len(left_out) - LEFT_OUT),
    )
    with atomic_path(out / PAGE) as path:
        path.write_text(page, encoding="utf-8", errors="replace")
    return out / PAGE


def facts(cohort: Cohort) -> list[str]:
    """Of what, by whom, and where it is decided."""
    labels = cohort.labels
    assert labels is not None
    counts = [f"{int((labels == index).sum())} {name}" for index, name in enumerate(cohort.class_names)]
    decides = f"decided by the {cohort.decides}"
    if len(cohort.class_names) == 2:
        decides += f" from {cohort.thresholds[cohort.decides]:.3f} on ({cohort.operating_point}, chosen on validation)"
    return [f"{len(set(cohort.cases))} cases", *counts, decides]


def score_sections(cohort: Cohort, scores: Sequence[Score]) -> Iterator[Section]:
    """A table of the whole cohort, and one of each subgroup; analytic intervals have a row of their own."""
    for group in dict.fromkeys(score.group for score in scores):
        own = [score for score in scores if score.group == group]
        found = {(one.role, one.metric, one.interval if one.interval in ANALYTIC else ""): one for one in own}
        names = list(dict.fromkeys((metric, kind) for _, metric, kind in found))
        rows = [
            [f"{metric} ({kind})" if kind else metric]
            + [shown(found[role, metric, kind]) if (role, metric, kind) in found else "" for role in cohort.probs]
            for metric, kind in names
        ]
        text = f"{own[0].rows} {cohort.unit}s of {own[0].cases} cases, {own[0].positives} positive; 95 % intervals"
        yield Section("All" if group == ALL else group, text, ["", *cohort.probs], rows)


def confusion_sections(cohort: Cohort, confusion: pd.DataFrame) -> Iterator[Section]:
    """Labels by row, decisions by column, of each role."""
    names = list(cohort.class_names)
    for role, counts in confusion.groupby("role", sort=False):
        table = counts.pivot_table(index="label", columns="decision", values="count", sort=False)
        rows = [[name, *(f"{table.loc[name, decision]:.0f}" for decision in names)] for name in names]
        yield Section(f"Confusion of the {role}", "labels by row, decisions by column", ["", *names], rows)


def comparison_section(comparisons: Sequence[Comparison]) -> Section:
    """Paired differences."""
    rows = []
    for one in comparisons:
        difference = interval(one.difference, one.low, one.high, "+")
        rows.append([one.ours, one.theirs, one.metric, difference, p_text(one.p), p_text(one.p_adjusted), one.test])
    header = ["", "against", "", "difference", "p", "p adjusted", "test"]
    return Section("Comparisons", "paired; adjusted by Benjamini and Hochberg over this table", header, rows)


def shown(score: Score) -> str:
    """`0.912 [0.850, 0.961]`."""
    return interval(score.value, score.low, score.high)


def interval(value: float, low: float, high: float, sign: str = "") -> str:
    """A value with the ends of its interval, where there is one."""
    if math.isnan(value):
        return "undefined"
    ends = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{value:{sign}.3f}{ends}"


def p_text(p: float) -> str:
    """Three digits; in words where a test says nothing, as of two that rank every row alike."""
    return "undefined" if math.isnan(p) else f"{p:.3g}"


def png_uri(figure: Figure) -> str:
    """A figure as a `data:` address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
