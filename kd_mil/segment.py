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
from kd_mil.core.devices import usable_device
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import checkpoint_path, load_network
from kd_mil.prediction.segmentation import WindowSettings, segmentation_inputs
from kd_mil.prediction.segmentation_outputs import OutlineSettings, write_segmentation

PATHS = ("ckpt", "images", "slides", "out")
NOT_OF_OUTPUTS = (*PATHS, "overwrite", "batch_size", "device", "max_gib", "trust")
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
    inputs = segmentation_inputs(plain["images"], plain["slides"])
    out, path = Path(plain["out"]), checkpoint_path(plain["ckpt"])
    require_writable(out)
    reading = {name: plain[name] for name in ("tuned", "threshold", "trust")}
    network = load_network(path, plain["role"], device=usable_device(plain["device"]), **reading)
    settings = {key: value for key, value in plain.items() if key not in NOT_OF_OUTPUTS}
    ledger = Ledger(out / ".finished", [file_digest(path), settings], plain["overwrite"])
    rows = []
    for item in tqdm(inputs, desc="segment", disable=None):
        facts = item.facts()
        row = ledger.finished(item.name, facts)
        if row is None:
            row, files = write_segmentation(item.segment(network, windows), network, out, outlines)
            ledger.record(item.name, facts, row, files)
        rows.append(row)
    with atomic_path(out / "segments.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    Console().print(f"{len(rows)} masks and outlines in {out}", soft_wrap=True, highlight=False, markup=False)


def chosen(plain: dict[str, Any], settings: type) -> dict[str, Any]:
    """Those of the values that a class of settings takes."""
    return {field.name: plain[field.name] for field in fields(settings)}


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], PATHS)
    main()


if __name__ == "__main__":
    start()
