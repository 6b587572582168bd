"""The table of a report as CSV, JSON and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.runs import Point, Run, common_settings

MISSING = "-"


def rows_of(entries: Sequence[Entry], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each point and role, with all its metrics: what people read."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in entries:
        row = rows.setdefault((one.point, one.role), {"point": one.point, "role": one.role, "entries": {}})
        row["chosen"] = one.point in chosen.values()
        row["runs"] = len(one.values)
        row["entries"][one.metric] = one
    return list(rows.values())


def long_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One line for each entry: what programs read."""
    lines = []
    for one in entries:
        line = one.plain()
        line["values"] = " ".join("nan" if value is None else repr(value) for value in one.values)
        other = line.pop("versus") or {}
        lines.append(line | {f"versus_{key}": value for key, value in other.items()})
    return pd.DataFrame(lines)


def tumour_thresholds(runs: Sequence[Run]) -> list[float]:
    """Least tumour area fractions from which tiles counted as positive; empty for runs that are not on slides."""
    sources = [run.record.get("instance_source") or {} for run in runs]
    return sorted({source["tumour_threshold"] for source in sources if "tumour_threshold" in source})


def document(
    points: Sequence[Point],
    runs: Sequence[Run],
    entries: Sequence[Entry],
    chosen: Mapping[str, str],
    baseline: str | None,
) -> dict[str, Any]:
    """Everything, in plain containers."""
    finished = [run for run in runs if run.finished]
    return {
        "common_settings": common_settings(finished),
        "baseline": baseline,
        "chosen_on_validation": dict(chosen),
        "points": [
            {
                "name": point.name,
                "experiment": point.experiment,
                "settings": point.settings,
                "runs": [
                    {"directory": str(run.directory)}
                    | {key: run.record.get(key) for key in ("seed", "data_fingerprint", "wall_seconds", "monitor")}
                    | {"validation": run.metrics.get(str(run.record.get("monitor")))}
                    for run in point.runs
                ],
                "entries": [one.plain() for one in entries if one.point == point.name],
            }
            for point in points
        ],
        "not_finished": [str(run.directory) for run in runs if not run.finished],
        "positive_tiles_from": tumour_thresholds(finished),
        "git_commits": sorted({str(run.record.get("git_commit")) for run in finished}),
        "versions": finished[0].record.get("versions", {}) if finished else {},
        "devices": sorted({str(run.record.get("device")) for run in finished}),
    }


def markdown(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Mean, standard deviation, interval and all values; the points that validation chooses in bold."""
    shown = [metric for metric in metrics if any(metric in row["entries"] for row in rows)]
    lines = ["| point | role | runs | " + " | ".join(shown) + " |", "|---|---|---|" + "---|" * len(shown)]
    for row in rows:
        name = f"**{row['point']}**" if row["chosen"] else row["point"]
        cells = [cell(row["entries"].get(metric)) for metric in shown]
        lines.append(f"| {name} | {row['role']} | {row['runs']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(one: Entry | None, all_values: bool = True) -> str:
    """One entry in words: mean, spread, interval, difference to the baseline, values."""
    if one is None or one.mean is None:
        return MISSING
    parts = [f"{one.mean:.3f}" + ("" if one.sd is None else f" ± {one.sd:.3f}")]
    if one.low is not None:
        parts.append(f"[{one.low:.3f}, {one.high:.3f}]")
    if one.versus is not None:
        parts.append(f"Δ {one.versus.difference:+.3f}" + p_text(one.versus.p_holm))
    if all_values and len(one.values) > 1:
        parts.append("(" + " ".join(short(value) for value in one.values) + ")")
    return " ".join(parts)


def short(value: float | None) -> str:
    """Three digits, without the leading zero."""
    return "nan" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def p_text(p: float | None) -> str:
    """A p value, or nothing."""
    return "" if p is None else f" p={p:.2g}"
