"""Predictions of a cohort against its labels: scores with intervals, and the tables behind them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from kd_mil.core.atomic import require_writable
from kd_mil.core.errors import UserError
from kd_mil.evaluation.statistics.pooling import Pooling
from kd_mil.reporting.cohort.files import write_cohort
from kd_mil.reporting.cohort.page import PAGE, shown
from kd_mil.reporting.cohort.reading import read_predictions
from kd_mil.reporting.cohort.scores import ALL, ANALYTIC, Score, comparisons_of, scores_of, subgroup_scores
from kd_mil.reporting.cohort.table import Cohort, by_case, with_labels
from kd_mil.slides.slide_labels import read_labels

SHOWN = ("auroc", "ap", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "brier", "ece")
"""In the table on the console; all are in metrics.csv."""


@dataclass(frozen=True)
class Evaluation:
    """How predictions are evaluated."""

    labels: str | None
    """CSV of labels; None for a run, which has its own."""
    report_by: Literal["slide", "case"] = "slide"
    case_pooling: Pooling | None = None
    """None: as when the thresholds of cases were chosen; `max` where that is not said."""
    subgroups: Sequence[str] = ()
    against: str | None = None
    """Predictions of another model for the same slides."""
    resamples: int = 2000
    seed: int = 0

    def of(self, folder: Path) -> Cohort:
        """The labelled cohort of a folder, at the level asked for.

        Raises:
            UserError: no labels, or as `read_predictions` and `with_labels`.
        """
        cohort = read_predictions(folder)
        if self.labels is not None:
            table = read_labels(self.labels, [*cohort.ids, *cohort.left_out], f"{cohort.unit}s of {folder}")
            cohort = with_labels(cohort, table, self.labels)
        elif cohort.labels is None:
            raise UserError(f"labels is not set: give a CSV slide_id,label[,case_id] of the slides in {folder}")
        if self.report_by != "case":
            return cohort
        pooling, chosen = self.case_pooling or cohort.case_pooling or "max", cohort.case_pooling
        if chosen not in (None, pooling):
            warnings.warn(
                f"case_pooling={pooling}: the thresholds of cases were chosen with {chosen} in training, "
                "so decisions on cases are not at the operating point",
                stacklevel=3,
            )
        return by_case(cohort, pooling)


def main(config: DictConfig) -> None:
    """Evaluate as the settings say."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    folder = Path(plain.pop("predictions"))
    out = Path(plain.pop("out") or folder / "evaluation")
    evaluate(folder, out, Evaluation(**plain))


def evaluate(folder: Path, out: Path, how: Evaluation) -> None:
    """Score a folder of predictions, write tables and figures, print the scores.

    Raises:
        UserError: labels or predictions that cannot be read, or do not fit each other.
    """
    require_writable(out)
    cohort = how.of(folder)
    other = None if how.against is None else aligned(how.of(Path(how.against)), cohort, how.against)
    scores = scores_of(cohort, how.resamples, how.seed)
    scores += subgroup_scores(cohort, how.subgroups, how.resamples, how.seed)
    write_cohort(out, cohort, scores, comparisons_of(cohort, other, how.resamples, how.seed))
    print_scores(cohort, scores, out)


def aligned(other: Cohort, cohort: Cohort, where: str) -> Cohort:
    """The rows of another model's cohort in the order of this one.

    Raises:
        UserError: other classes, or a slide that it did not predict.
    """
    if other.class_names != cohort.class_names:
        raise UserError(f"against={where}: its classes are {', '.join(other.class_names)}, another task")
    position = {name: index for index, name in enumerate(other.ids)}
    for name in cohort.ids:
        if name not in position:
            raise UserError(f"against={where}: it has no prediction for {name!r}: compare what both predicted")
    rows = [position[name] for name in cohort.ids]
    probs = {role: values[rows] for role, values in other.probs.items()}
    return replace(other, ids=cohort.ids, probs=probs, labels=cohort.labels, cases=cohort.cases)


def print_scores(cohort: Cohort, scores: Sequence[Score], out: Path) -> None:
    """Scores of the whole cohort, then what was left out, and where the rest is."""
    whole = {(one.role, one.metric): one for one in scores if one.group == ALL and one.interval not in ANALYTIC}
    cases = "" if cohort.unit == "case" else f" of {len(set(cohort.cases))} cases"
    table = Table(cohort.unit, *cohort.probs, title=f"{len(cohort.ids)} {cohort.unit}s{cases}")
    for metric in SHOWN:
        table.add_row(metric, *(shown(whole[role, metric]) for role in cohort.probs))
    console = Console(width=max(Console().width, 60))
    console.print(table)
    reasons: dict[str, int] = {}
    for reason in cohort.left_out.values():
        reasons[reason.split(":")[0]] = reasons.get(reason.split(":")[0], 0) + 1
    lines = [f"left out: {count} with {reason}" for reason, count in reasons.items()]
    lines.append(f"decided by the {cohort.decides} at its point {cohort.operating_point!r}")
    for line in [*lines, f"to look at: {out.absolute() / PAGE}, tables beside it"]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
