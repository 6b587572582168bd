"""A trained network on images and slides: masks and outlines."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from kd_mil.cards.loading import checkpoint_path
from kd_mil.core.atomic import atomic_path, remove_all_unfinished, require_writable
from kd_mil.core.checks import harmless
from kd_mil.core.errors import UserError, one_line
from kd_mil.core.machine.devices import usable_device
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import load_network
from kd_mil.prediction.panels import FOLDER as PANELS
from kd_mil.prediction.segmentation import WindowSettings, segmentation_inputs, slide_resolution
from kd_mil.prediction.segmentation_outputs import OutlineSettings, write_segmentation
from kd_mil.reporting.prediction_page import write_prediction_page
from kd_mil.slides.overlays.score_grid import shades

NOT_OF_OUTPUTS = (
    *("ckpt", "images", "slides", "out"),
    *("overwrite", "on_error", "batch_size", "device", "max_gib", "trust"),
)
"""Settings that change nothing in what is written."""


def main(config: DictConfig) -> None:
    """Segment everything asked for; one row each in `segments.csv`."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    tissue = instantiate(config.tissue, _convert_="all")
    windows = WindowSettings(**chosen(plain, WindowSettings) | {"tissue": tissue})
    outlines = OutlineSettings(**chosen(plain, OutlineSettings))
    inputs = segmentation_inputs(plain["images"], plain["slides"])
    out, path = Path(plain["out"]), checkpoint_path(plain["ckpt"])
    require_writable(out)
    reading = {name: plain[name] for name in ("tuned", "threshold", "trust")}
    network = load_network(path, plain["role"], device=usable_device(plain["device"]), **reading)
    if plain["slides"] is not None:
        slide_resolution(network, windows)
    settings = {key: value for key, value in plain.items() if key not in NOT_OF_OUTPUTS}
    ledger = Ledger(out / ".finished", [network.checkpoint, settings], plain["overwrite"])
    rows = []
    for item in tqdm(inputs, desc="segment", disable=None):
        try:
            facts = item.facts()
            row = ledger.finished(item.name, facts)
            if row is None:
                row, files = write_segmentation(item.segment(network, windows), network, out, outlines)
                ledger.record(item.name, facts, row, files)
            rows.append(row | {"note": ""})
        except Exception as error:  # whatever it is, the others are segmented
            line = one_line(error)
            if plain["on_error"] == "stop":
                raise UserError(f"{line} (on_error=skip leaves it out)") from error
            tqdm.write(f"skipped {item.name}: {line}", file=sys.stderr)
            rows.append({"name": harmless(item.name), "note": harmless(line)})
    for name in (".", "masks", "maps", "geojson", PANELS, ".finished"):
        remove_all_unfinished(out / name)
    with atomic_path(out / "segments.csv") as table:
        pd.DataFrame(rows).to_csv(table, index=False)
    page = write_prediction_page(out, "segments.csv", "name", f"Masks: {out.absolute().name}", shades())
    say(rows, out)
    print(f"to look at them: {page}")


def say(rows: list[dict[str, Any]], out: Path) -> None:
    """The end of the command: how many masks there are, and what could not be read.

    Raises:
        UserError: nothing could be read.
    """
    failed = [row for row in rows if row["note"]]
    if len(failed) == len(rows):
        more = f" ({len(failed) - 1} more failed, too)" if len(failed) > 1 else ""
        raise UserError(f"nothing could be read: {failed[0]['note']}{more}")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for row in failed:
        console.print(f"without mask: {row['name']}: {row['note']}")
    console.print(f"{len(rows) - len(failed)} masks and outlines in {out}")


def chosen(plain: dict[str, Any], settings: type) -> dict[str, Any]:
    """Those of the values that a class of settings takes."""
    return {field.name: plain[field.name] for field in fields(settings)}
