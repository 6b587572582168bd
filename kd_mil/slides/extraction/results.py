"""The folder of an extraction: one set of settings, a table of what became of every slide, and one to train on."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from kd_mil.core.atomic import atomic_path, write_new
from kd_mil.core.checks import harmless
from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.outcome import Outcome
from kd_mil.slides.extraction.store import refuse_other_settings
from kd_mil.slides.slide_list import SlideEntry

MOST_ROUNDS = 5
"""Of tables: while others go on finishing slides there is always news, and they will write tables themselves."""


@contextmanager
def held_to_settings(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Hold `out` to one set of settings, kept in `out/settings.json`; an extraction without a result leaves no file.

    Raises:
        UserError: the folder holds files of other settings, another process is making some, or it cannot be written.
    """
    path, made = out / "settings.json", not out.exists()
    try:
        new = write_new(path, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error})") from error
    if not new:
        refuse_other_settings(path, settings_in(path), settings)
    try:
        yield
    finally:
        if not (out / ".claims").exists() and not any(out.glob("*/*.h5")):
            path.unlink(missing_ok=True)
            shutil.rmtree(out / ".finished", ignore_errors=True)
            for name in ("qc", "contours") if made else ():  # of slides that failed afterwards
                shutil.rmtree(out / name, ignore_errors=True)
            for folder in [out / "features", out / "patches"] + ([out] if made else []):
                with suppress(OSError):
                    folder.rmdir()


def settings_in(path: Path) -> dict[str, Any]:
    """The settings that a file holds.

    Raises:
        UserError: it holds none, as after a full disk.
    """
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is damaged: remove it; what was extracted is compared slide by slide")
    return settings


def write_together(
    entries: Sequence[SlideEntry], extraction: Extraction, write: Callable[[list[Outcome]], object]
) -> list[Outcome]:
    """Write tables of all slides of a list, of which several processes may have done parts, and write tables, too.

    The last one to write has to know what all others did: it looks again, and writes again where there was news.

    Args:
        entries: all slides, in the order of the tables.
        extraction: what this process did.
        write: writes the tables of one outcome a slide.

    Returns:
        One outcome for each slide.
    """
    finished, own = extraction.finished, extraction.outcomes
    finished.refresh()
    for _ in range(MOST_ROUNDS):
        everything = [own.get(entry.slide_id) or finished.last(entry) for entry in entries]
        write(everything)
        if not finished.refresh():
            break
    return everything


def write_tables(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `summary.csv`, what became of every slide, and `manifest.csv`, the slides to train on; returns the latter.

    The manifest holds the slides with tiles and, where some have labels, with a label.
    """
    summary = [
        {
            "slide_id": outcome.entry.slide_id,
            "status": outcome.status,
            "tiles": outcome.tiles,
            "path": "" if outcome.status in ("failed", "pending") else outcome.path.relative_to(out),
            "message": harmless(outcome.message),
        }
        for outcome in outcomes
    ]
    labelled = any(outcome.entry.label is not None for outcome in outcomes)
    used = [outcome for outcome in outcomes if outcome.tiles > 0 and (outcome.entry.label is not None or not labelled)]
    manifest = pd.DataFrame([manifest_row(outcome, out) for outcome in used], dtype=object)
    with atomic_path(out / "summary.csv") as path:
        pd.DataFrame(summary).to_csv(path, index=False)
    with atomic_path(out / "manifest.csv") as path:
        manifest.dropna(axis="columns", how="all").to_csv(path, index=False)
    return out / "manifest.csv"


def page_rows(outcomes: Sequence[Outcome], out: Path) -> list[dict[str, Any]]:
    """The slides as a page over an output folder lists them; their pictures are looked up at once."""
    folder = out / "qc"
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return [
        {
            "slide": outcome.entry.slide_id,
            "status": outcome.status,
            "tiles": outcome.tiles,
            "rejected": outcome.rejected,
            "tissue": outcome.tissue,
            "message": outcome.message,
            "picture": f"qc/{outcome.entry.slide_id}.jpg" if f"{outcome.entry.slide_id}.jpg" in there else None,
        }
        for outcome in outcomes
    ]


def manifest_row(outcome: Outcome, out: Path) -> dict[str, Any]:
    """A slide's row of the manifest, which serves as a slide list, too; further columns of the list come along."""
    entry = outcome.entry
    with_features = outcome.path.parent.name == "features"
    row = {
        "slide_id": entry.slide_id,
        "case_id": entry.case_id,
        "label": entry.label,
        "split": entry.split,
        "fold": entry.fold,
        "feature_path" if with_features else "coords_path": outcome.path.relative_to(out),
        "slide_path": entry.place,
        "mpp": outcome.mpp,
        "annotation_path": entry.annotation_path and entry.annotation_path.absolute(),
    }
    return row | {harmless(name): harmless(cell) for name, cell in entry.further.items()}
