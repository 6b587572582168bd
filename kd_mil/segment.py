"""Masks and outlines of images and slides: `python -m kd_mil.segment ckpt=RUN images=DIR|slides=DIR out=DIR`."""

from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from kd_mil.cli.command import command
from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import at_least, share
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import file_digest, identity
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import checkpoint_path, load_network
from kd_mil.prediction.segmentation import file_map, list_images, slide_map, write_outputs
from kd_mil.slides.slide_list import SlideEntry, list_slides

NOT_OF_OUTPUTS = ("ckpt", "images", "slides", "out", "overwrite", "batch_size", "device", "max_gib", "trust")
"""Settings that change nothing in what is written."""


@command("segment")
def main(config: DictConfig) -> None:
    """Segment everything asked for; one row each in `segments.csv`."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain)
    network = load_network(plain)
    out, rows = Path(plain["out"]), []
    settings = {key: value for key, value in plain.items() if key not in NOT_OF_OUTPUTS}
    ledger = Ledger(out / ".finished", [file_digest(checkpoint_path(plain["ckpt"])), settings], plain["overwrite"])
    entries = list_slides(plain["slides"]) if plain["images"] is None else list_images(Path(plain["images"]))
    for entry in tqdm(entries, desc="segment", disable=None):
        slide = isinstance(entry, SlideEntry)
        name, facts = (entry.slide_id, [*identity(entry.path), entry.mpp]) if slide else (entry.stem, identity(entry))
        row = ledger.finished(name, facts)
        if row is None:
            one = slide_map(network, entry, plain) if slide else file_map(network, entry, plain)
            row, files = write_outputs(one, network, out, plain)
            ledger.record(name, facts, row, files)
        rows.append(row)
    with atomic_path(out / "segments.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    Console().print(f"{len(rows)} masks and outlines in {out}", soft_wrap=True, highlight=False)


def check(plain: dict[str, Any]) -> None:
    """Refuse settings that could only fail later.

    Raises:
        UserError: both or neither of images and slides, or a number out of range.
    """
    if (plain["images"] is None) == (plain["slides"] is None):
        raise UserError("give images=FOLDER or slides=FOLDER, one of them")
    share("overlap", plain["overlap"], one=False)
    for name in ("reduce", "batch_size", "min_pixels"):
        at_least(name, plain[name], 1)
    scale = plain["scale"]
    if scale != "fit" and not (isinstance(scale, int | float) and scale > 0):
        raise UserError(f"scale={scale}: give fit, or pixels of the network per pixel of the image")
    if plain["threshold"] is not None and not 0 < plain["threshold"] < 1:
        raise UserError(f"threshold={plain['threshold']}: must lie between 0 and 1")


if __name__ == "__main__":
    main()
