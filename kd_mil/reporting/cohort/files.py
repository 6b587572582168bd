"""The files of an evaluated cohort: tables that every number can be computed from, and two figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from kd_mil.core.atomic import atomic_path
from kd_mil.core.run_files import write_json
from kd_mil.evaluation.statistics.calibration import reliability_curve, top_class
from kd_mil.reporting.cohort.page import write_cohort_page
from kd_mil.reporting.cohort.scores import ALL, ANALYTIC, Comparison, Score
from kd_mil.reporting.cohort.table import Cohort, evaluated_rows

METRICS = "metrics.json"


def write_cohort(out: Path, cohort: Cohort, scores: Sequence[Score], comparisons: Sequence[Comparison]) -> None:
    """Write `metrics.json`, `metrics.csv`, `evaluated.csv`, `confusion.csv`, `roc.csv`, `reliability.csv`,
    `comparisons.csv`, `roc.png`, `reliability.png` and a page over all of it, `index.html`, into a folder.
    """
    roc, reliability = roc_table(cohort), reliability_table(cohort)
    tables = {
        "metrics": pd.DataFrame(scores, columns=Score._fields),
        "evaluated": evaluated_rows(cohort),
        "confusion": confusion_table(cohort),
        "roc": roc,
        "reliability": reliability,
        "comparisons": pd.DataFrame(comparisons, columns=Comparison._fields),
    }
    for name, table in tables.items():
        with atomic_path(out / f"{name}.csv") as path:
            table.to_csv(path, index=False)
    figures = {"roc": roc_figure(roc, cohort), "reliability": reliability_figure(reliability)}
    for name, figure in figures.items():
        with atomic_path(out / f"{name}.png") as path:
            figure.savefig(path, dpi=110, format="png")
    write_json(out / METRICS, summary(cohort, scores))
    captioned = {
        "ROC curves, a dot where the role decides": figures["roc"],
        "how often what is said comes true": figures["reliability"],
    }
    write_cohort_page(out, cohort, scores, comparisons, tables["confusion"], captioned)


def summary(cohort: Cohort, scores: Sequence[Score]) -> dict[str, Any]:
    """The numbers of the whole cohort by `ROLE/METRIC`, with the ends of their intervals, and what they are of."""
    labels = cohort.labels
    assert labels is not None
    found: dict[str, Any] = {}
    for score in scores:
        if score.group == ALL and score.interval not in ANALYTIC:
            name = f"{score.role}/{cohort.unit}_{score.metric}"
            found |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    return found | {
        "unit": cohort.unit,
        "count": len(cohort.ids),
        "cases": len(set(cohort.cases)),
        "classes": {name: int((labels == index).sum()) for index, name in enumerate(cohort.class_names)},
        "decides": cohort.decides,
        "operating_point": cohort.operating_point,
        "thresholds": dict(cohort.thresholds),
        "left_out": dict(cohort.left_out),
    }


def confusion_table(cohort: Cohort) -> pd.DataFrame:
    """`role, label, decision, count`: every pair of classes."""
    names, labels = cohort.class_names, cohort.labels
    assert labels is not None
    rows = []
    for role in cohort.probs:
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, (labels, cohort.decided(role)), 1)
        rows += [(role, a, b, int(counts[i, j])) for i, a in enumerate(names) for j, b in enumerate(names)]
    return pd.DataFrame(rows, columns=["role", "label", "decision", "count"])


def roc_table(cohort: Cohort) -> pd.DataFrame:
    """`role, class, threshold, false_positive_rate, true_positive_rate`, one class against the rest."""
    labels = cohort.labels
    assert labels is not None
    names, parts = cohort.class_names, []
    for role, probs in cohort.probs.items():
        for index in range(1 if len(names) == 2 else 0, len(names)):
            event = labels == index
            if event.all() or not event.any():
                continue
            false, true, thresholds = roc_curve(event, probs[:, index], drop_intermediate=False)
            columns = {"threshold": thresholds, "false_positive_rate": false, "true_positive_rate": true}
            parts.append(pd.DataFrame({"role": role, "class": names[index], **columns}))
    columns_of_nothing = ["role", "class", "threshold", "false_positive_rate", "true_positive_rate"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns_of_nothing)


def reliability_table(cohort: Cohort) -> pd.DataFrame:
    """`role, low, high, counts, predicted, observed` of ten bins; of more than two classes of the most probable."""
    labels = cohort.labels
    assert labels is not None
    parts = []
    for role, probs in cohort.probs.items():
        events = (probs[:, 1], labels == 1) if probs.shape[1] == 2 else top_class(probs, labels)
        parts.append(pd.DataFrame({"role": role, **reliability_curve(*events)._asdict()}))
    return pd.concat(parts)


def roc_figure(table: pd.DataFrame, cohort: Cohort) -> Figure:
    """ROC curves of the roles; a dot where each decides."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for (role, name), curve in table.groupby(["role", "class"], sort=False):
        label = role if len(cohort.class_names) == 2 else f"{role}, {name}"
        [line] = axes.plot(curve.false_positive_rate, curve.true_positive_rate, label=str(label))
        if len(cohort.class_names) == 2:
            at = curve[curve.threshold >= cohort.thresholds[str(role)]].iloc[-1]
            axes.plot([at.false_positive_rate], [at.true_positive_rate], "o", color=line.get_color())
    axes.plot([0, 1], [0, 1], ":", color="0.6")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def reliability_figure(table: pd.DataFrame) -> Figure:
    """Observed frequency against mean probability; the area of a dot is the number of predictions."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for role, bins in table.groupby("role", sort=False):
        filled = bins[bins.counts > 0]
        [line] = axes.plot(filled.predicted, filled.observed, label=str(role))
        axes.scatter(filled.predicted, filled.observed, 200 * filled.counts / bins.counts.sum(), color=line.get_color())
    axes.plot([0, 1], [0, 1], ":", color="0.6")
    axes.set(xlabel="mean probability", ylabel="observed frequency", xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.set_aspect("equal")
    axes.legend(frameon=False)
    return figure
