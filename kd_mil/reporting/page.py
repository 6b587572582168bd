"""One HTML page that needs nothing beside it: table, figures, and links to the runs."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.runs import Point, Run
from kd_mil.reporting.tables import MISSING, p_text, short

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } img { max-width: 100%; }
table { border-collapse: collapse; } th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #999; white-space: nowrap; } td { border-bottom: 1px solid #ddd; }
th[data-sort] { cursor: pointer; } th[data-sort]::after { content: " \\2195"; color: #aaa; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; } small { color: #777; display: block; }
tr.chosen td { background: #fff6d6; } code { background: #f3f3f3; padding: 0 .2em; }
"""
SORT = """
for (const head of document.querySelectorAll("th[data-sort]")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], place = head.cellIndex;
  const key = row => row.cells[place].dataset.key ?? row.cells[place].textContent;
  const up = head.dataset.up = head.dataset.up === "1" ? "" : "1";
  const words = (a, b) => a.localeCompare(b, undefined, {numeric: true});
  const order = (a, b) => isNaN(key(a) - key(b)) ? words(key(a), key(b)) : key(a) - key(b);
  body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
};
"""
PICTURES = (".png", ".html", ".svg")


def page(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    points: Sequence[Point],
    content: Mapping[str, Any],
    figures: Mapping[str, Figure],
    out: Path,
) -> str:
    """The page.

    Args:
        title: heading.
        rows: of `tables.rows_of`.
        metrics: columns.
        points: with the runs to link to.
        content: of `tables.document`.
        figures: by caption.
        out: folder in which the page will lie; links are relative to it.
    """
    shown = [metric for metric in metrics if any(metric in row["entries"] for row in rows)]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        summary(content),
        *(f"<h2>{html.escape(caption)}</h2><img alt='{html.escape(caption)}' src='{data_uri(figure)}'>"
          for caption, figure in figures.items()),
        "<h2>Test results</h2>",
        "<p>Mean ± standard deviation over runs; 95 % interval of the mean by resampling test bags; all values. "
        "Validation chose the highlighted rows; the others are listed for the record, and must not be chosen by.</p>",
        results_table(rows, shown),
        "<h2>Runs</h2>",
        runs_table(points, out),
        facts(content),
    ]  # fmt: skip
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    return (
        f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}<script>{SORT}</script></body></html>"
    )


def summary(content: Mapping[str, Any]) -> str:
    """What is in the page, in a paragraph."""
    runs = sum(len(point["runs"]) for point in content["points"])
    text = f"<p>{len(content['points'])} points, {runs} finished runs."
    chosen = "; ".join(f"<b>{html.escape(name)}</b>" for name in content["chosen_on_validation"].values())
    text += f" Chosen on validation: {chosen}." if chosen else ""
    if content["baseline"]:
        text += (
            f" Differences (Δ) are to <b>{html.escape(content['baseline'])}</b> over pairs of the same seed and test "
            "bags, with the p value of a paired t test, corrected for the number of points (Holm)."
        )
    missing = content["not_finished"]
    if missing:
        names = html.escape(", ".join(Path(name).name for name in missing[:10]))
        text += f" <b>Not finished: {len(missing)}</b> ({names})."
    return text + "</p>"


def results_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """One row for each point and role; a click on a heading sorts."""
    heads = "".join(f"<th data-sort>{name}</th>" for name in ("point", "role", "runs", *metrics))
    body = ""
    for row in rows:
        cells = "".join(metric_cell(row["entries"].get(metric)) for metric in metrics)
        body += (
            f"<tr class='{'chosen' if row['chosen'] else ''}'><td>{html.escape(row['point'])}</td>"
            f"<td>{html.escape(row['role'])}</td><td class='n'>{row['runs']}</td>{cells}</tr>"
        )
    return f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def metric_cell(one: Entry | None) -> str:
    """Mean and spread, with the rest in small print."""
    if one is None or one.mean is None:
        return f"<td class='n' data-key='-1'>{MISSING}</td>"
    spread = "" if one.sd is None else f" ± {one.sd:.3f}"
    small = [] if one.low is None else [f"[{one.low:.3f}, {one.high:.3f}]"]
    small += [" ".join(short(value) for value in one.values)] if len(one.values) > 1 else []
    if one.versus is not None:
        within = "" if one.versus.low is None else f" [{one.versus.low:+.3f}, {one.versus.high:+.3f}]"
        small.append(f"Δ {one.versus.difference:+.3f}{within}{p_text(one.versus.p_holm)}")
    lines = "".join(f"<small>{line}</small>" for line in small)
    return f"<td class='n' data-key='{one.mean:.6f}'>{one.mean:.3f}{spread}{lines}</td>"


def runs_table(points: Sequence[Point], out: Path) -> str:
    """Links to every run, its figures and its heat maps."""
    names = ("point", "seed", "validation", "minutes", "files")
    heads = "".join(f"<th data-sort>{name}</th>" for name in names)
    body = "".join(run_row(point, run, out) for point in points for run in point.runs)
    return f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def run_row(point: Point, run: Run, out: Path) -> str:
    """One run: name, seed, validation score of its checkpoint, time, links."""
    monitor = str(run.record.get("monitor"))
    score = run.metrics.get(monitor)
    shown = MISSING if score is None else f"{score:.4f}"
    seconds = run.record.get("wall_seconds")
    minutes = MISSING if seconds is None else f"{seconds / 60:.1f}"
    return (
        f"<tr><td>{html.escape(point.name)}</td><td class='n'>{run.record.get('seed')}</td>"
        f"<td class='n' data-key='{'-1' if score is None else score}'>{shown}<small>{html.escape(monitor)}</small></td>"
        f"<td class='n'>{minutes}</td><td>{' '.join(links(run.directory, out))}</td></tr>"
    )


def links(directory: Path, out: Path) -> list[str]:
    """Relative links to a run's folder, metrics, pictures and heat maps."""
    found = [directory, directory / "metrics.json", directory / "bags.csv"]
    for folder in ("figures", "heatmaps"):
        found += sorted(path for path in (directory / folder).rglob("*") if path.suffix in PICTURES)[:40]
    return [
        f"<a href='{html.escape(Path(os.path.relpath(path, out)).as_posix(), quote=True).replace('#', '%23')}'>"
        f"{html.escape(path.name if path != directory else 'folder')}</a>"
        for path in found
        if path.exists()
    ]


def facts(content: Mapping[str, Any]) -> str:
    """Settings all runs share, and what they ran with."""
    common = " ".join(f"{key}={value}" for key, value in content["common_settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    rows = {"common settings": common or MISSING, "commits": ", ".join(content["git_commits"]), "versions": versions,
            "devices": ", ".join(content["devices"])}  # fmt: skip
    if content["positive_tiles_from"]:
        areas = ", ".join(f"{100 * area:g} %" for area in content["positive_tiles_from"])
        rows["a tile is positive from"] = f"{areas} tumour area"
    lines = "".join(f"<tr><td>{name}</td><td><code>{html.escape(text)}</code></td></tr>" for name, text in rows.items())
    return f"<h2>How they ran</h2><table><tbody>{lines}</tbody></table>"


def data_uri(figure: Figure) -> str:
    """The figure as a PNG inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
