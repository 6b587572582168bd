"""One HTML page over the slides of an extraction: a sortable table, and the picture of what was tiled at a click."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kd_mil.core.atomic import atomic_path
from kd_mil.reporting.html import TEMPLATES


def write_tiling_page(path: Path, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the page; it needs the pictures beside it, and nothing else.

    Args:
        path: the page.
        title: heading.
        rows: of each slide `slide` (id), `status`, `tiles`, `rejected` and `tissue` (a share; each None where unknown),
            `message`, and `picture`, relative to the page's folder, None where there is none.
    """
    shown = [dict(row, picture=row["picture"] and quote(Path(row["picture"]).as_posix())) for row in rows]
    page = TEMPLATES.get_template("tiling.html").render(title=title, rows=shown, facts=facts(rows))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def facts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands above the table: numbers of slides and tiles."""
    counts = Counter(row["status"] for row in rows)
    finished = [row for row in rows if row["status"] in ("written", "kept")]
    lines = [f"{len(finished)} of {len(rows)} slides finished", f"{sum(row['tiles'] for row in finished)} tiles"]
    lines += [f"{counts[status]} {status}" for status in ("failed", "pending") if counts[status]]
    if doubtful := sum(bool(row["message"]) for row in finished):
        lines.append(f"{doubtful} to look at")
    if empty := sum(row["tiles"] == 0 for row in finished):
        lines.append(f"{empty} without tiles")
    return lines
