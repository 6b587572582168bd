"""The table of a report as CSV, JSON and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kd_mil.reporting.comparison import Entry, PairedDifference
from kd_mil.reporting.runs import Point, Run, common_settings

MISSING = "-"
COUNTS = 1000
"""Numbers from here on are shown without decimals."""


def rows_of(entries: Sequence[Entry], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each point and role, with all its metrics: what people read."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault((entry.point, entry.role), {"point": entry.point, "role": entry.role, "entries": {}})
        row["chosen"] = entry.point in chosen.values()
        row["runs"] = len(entry.values)
        row["entries"][entry.metric] = entry
    return list(rows.values())


def shown_metrics(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """The metrics that at least one row has."""
    return [metric for metric in metrics if any(metric in row["entries"] for row in rows)]


def long_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One line for each entry: what programs read."""
    lines = []
    for entry in entries:
        line = entry.plain()
        versus = line.pop("versus") or {}
        lines.append(line | {f"versus_{key}": value for key, value in versus.items()})
        for name in ("values", "versus_values"):
            if name in lines[-1]:
                lines[-1][name] = " ".join("nan" if value is None else repr(value) for value in lines[-1][name])
    return pd.DataFrame(lines)


def tumour_thresholds(runs: Sequence[Run]) -> list[float]:
    """Least tumour area fractions from which tiles counted as positive; empty for runs that are not on slides."""
    found = [(run.record.get("instance_source") or {}).get("tumour_threshold") for run in runs]
    return sorted({float(value) for value in found if isinstance(value, int | float)})


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
                "entries": [entry.plain() for entry in entries if entry.point == point.name],
            }
            for point in points
        ],
        "not_finished": [str(run.directory) for run in runs if not run.finished and run.fault is None],
        "not_readable": [run.fault for run in runs if run.fault is not None],
        "copies": [str(run.directory) for point in points for run in point.copies],
        "resampled": sorted({run.held_out.resampled for point in points for run in point.runs if run.held_out}),
        "positive_tiles_from": tumour_thresholds(finished),
        "git_commits": sorted({str(run.record.get("git_commit")) for run in finished}),
        "versions": (finished[0].record.get("versions") or {}) if finished else {},
        "devices": sorted({str(run.record.get("device")) for run in finished}),
    }


def markdown(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Mean, standard deviation, interval and all values; the points that validation chooses in bold."""
    shown = shown_metrics(rows, metrics)
    lines = ["| point | role | runs | " + " | ".join(shown) + " |", "|---|---|---|" + "---|" * len(shown)]
    for row in rows:
        name, role = (in_cell(row[key]) for key in ("point", "role"))
        cells = [cell_text(row["entries"].get(metric)) for metric in shown]
        name = f"**{name}**" if row["chosen"] else name
        lines.append(f"| {name} | {role} | {row['runs']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def in_cell(text: str) -> str:
    """Text in a cell of a Markdown table, where a bar or a new line would end it, and `<` begin HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def cell_text(entry: Entry | None, all_values: bool = True) -> str:
    """One entry in words: mean, spread, interval, difference to the baseline, values."""
    if entry is None or entry.mean is None:
        return MISSING
    parts = [mean_text(entry)]
    if entry.low is not None:
        parts.append(f"[{entry.low:.3f}, {entry.high:.3f}]")
    if entry.versus is not None:
        parts.append(difference_text(entry.versus))
    if all_values and len(entry.values) > 1:
        parts.append("(" + " ".join(value_text(value) for value in entry.values) + ")")
    return " ".join(parts)


def mean_text(entry: Entry) -> str:
    """`0.912 ± 0.013`; of counts, such as parameters, whole numbers."""
    mean = entry.mean or 0.0
    digits = 0 if abs(mean) >= COUNTS else 3
    return f"{mean:,.{digits}f}" + ("" if entry.sd is None else f" ± {entry.sd:,.{digits}f}")


def difference_text(versus: PairedDifference) -> str:
    """`Δ +0.052 [+0.011, +0.093] p=0.03, 3 pairs`; without interval or p value where there is none.

    Where pairs on the same test cases count as one, it says how many are left: `p=0.03 of 5 test sets, 15 pairs`.
    """
    interval = "" if versus.low is None else f" [{versus.low:+.3f}, {versus.high:+.3f}]"
    digits = 0 if abs(versus.difference) >= COUNTS else 3
    p = "" if versus.p_holm is None else f" p={versus.p_holm:.2g}"
    p += f" of {versus.independent} test sets" if p and versus.over == "test sets" else ""
    return f"Δ {versus.difference:+,.{digits}f}{interval}{p}, {versus.pairs} pair{'' if versus.pairs == 1 else 's'}"


def value_text(value: float | None) -> str:
    """Three digits, `.123` for 0.123."""
    if value is None:
        return "nan"
    text = f"{value:,.0f}" if abs(value) >= COUNTS else f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
