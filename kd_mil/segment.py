"""Masks and outlines of images and slides: `python -m kd_mil.segment ckpt=RUN images=DIR|slides=DIR out=DIR`."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.atomic import atomic_path, require_writable
from kd_mil.core.checks import one_of
from kd_mil.core.devices import usable_device
from kd_mil.core.errors import UserError
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import checkpoint_path, load_network
from kd_mil.prediction.segmentation import WindowSettings, segmentation_inputs, slide_resolution
from kd_mil.prediction.segmentation_outputs import OutlineSettings, write_segmentation

PATHS = ("ckpt", "images", "slides", "out")
NOT_OF_OUTPUTS = (*PATHS, "overwrite", "on_error", "batch_size", "device", "max_gib", "trust")
"""Settings that change nothing in what is written."""


@command("segment")
def main(config: DictConfig) -> None:
    """Segment everything asked for; one row each in `segments.csv`."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    tissue = instantiate(config.tissue, _convert_="all")
    windows = WindowSettings(**chosen(plain, WindowSettings) | {"tissue": tissue})
    outlines = OutlineSettings(**chosen(plain, OutlineSettings))
    if plain["threshold"] is not None and not 0 < plain["threshold"] < 1:
        raise UserError(f"threshold={plain['threshold']}: must lie between 0 and 1")
    one_of("on_error", plain["on_error"], ("skip", "stop"))
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
        except (UserError, OSError) as error:
            if plain["on_error"] == "stop":
                raise UserError(f"{error} (on_error=skip leaves it out)") from error
            tqdm.write(f"skipped {item.name}: {error}", file=sys.stderr)
            rows.append({"name": item.name, "note": str(error)})
    with atomic_path(out / "segments.csv") as table:
        pd.DataFrame(rows).to_csv(table, index=False)
    say(rows, out)


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


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], PATHS)
    main()


if __name__ == "__main__":
    start()
