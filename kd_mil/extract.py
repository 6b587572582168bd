"""Slides to features: `python -m kd_mil.extract slides=DIR_or_CSV out=DIR encoder=timm encoder.name=NAME`."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.devices import usable_device
from kd_mil.core.errors import UserError
from kd_mil.models.encoders.tile_encoder import TileEncoder
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.outcome import Outcome
from kd_mil.slides.extraction.results import held_to_settings, write_tables
from kd_mil.slides.slide_list import list_slides, with_labels
from kd_mil.slides.tiles.cutting import Cutting


@command("extract")
def main(config: DictConfig) -> None:
    """Extract what is not extracted yet, then write the tables and print the result of each slide."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # one line, for people
    for name, hint in (("slides", "a folder, a pattern or a CSV of slides"), ("out", "a folder for the results")):
        if config[name] is None:
            raise UserError(f"{name}= is not set: give {hint}")
    entries = list_slides(config.slides)
    if config.labels is not None:
        entries = with_labels(entries, config.labels)
    cutting = configured_cutting(config)
    encoder = build_encoder(config, cutting.tiling.tile_size)
    out = Path(config.out).absolute()
    how = {name: config[name] for name in ("batch_size", "num_workers", "on_error", "negatives_known")}
    extraction = Extraction(entries, out, cutting, encoder, **how)
    made_by = {"encoder": encoder and encoder.identity, "transform": encoder and encoder.transform}
    with held_to_settings(out, cutting.attributes() | made_by):
        outcomes = extraction.run()
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        if len(failed) == len(outcomes):
            more = f" ({len(failed) - 1} more slides failed, too)" if len(failed) > 1 else ""
            raise UserError(f"no slide could be read: {failed[0].message}{more}")
        manifest = write_tables(outcomes, out)
    show(outcomes, manifest, coordinates_only=encoder is None)


def configured_cutting(config: DictConfig) -> Cutting:
    """How slides become tiles, as configured."""
    parts = {name: instantiate(config[name], _convert_="all") for name in ("tiling", "tissue", "annotations")}
    return Cutting(**parts, backend=config.backend, mpp=config.mpp, mpp_override=config.mpp_override)


def build_encoder(config: DictConfig, tile_size: int) -> TileEncoder | None:
    """The encoder as configured; None where there is none.

    Raises:
        UserError: it cannot be built, does not take such tiles, or its device is not there.
    """
    if config.get("encoder") is None:
        return None
    plain: dict[str, Any] = OmegaConf.to_container(config.encoder, resolve=True)  # type: ignore[assignment]
    factory = instantiate(config.encoder, _convert_="all")
    if not callable(factory):
        raise UserError("encoder is set without encoder=...: choose one, as in encoder=timm encoder.name=resnet50")
    device = usable_device(config.device)
    encoder = TileEncoder(factory, plain, tile_size, device, config.precision, config.seed)
    if plain.get("pretrained") is False:
        warnings.warn(f"{encoder.identity['name']} has random weights: give encoder.pretrained=true", stacklevel=2)
    return encoder


def show(outcomes: Sequence[Outcome], manifest: Path, coordinates_only: bool) -> None:
    """The end of the command: counts, failures, and what to do next."""
    console = Console(width=max(Console().width, 80))
    table = Table("slides", "number", "tiles", title="coordinates only (no encoder=...)" if coordinates_only else None)
    for status in ("written", "kept", "failed"):
        tiles = [outcome.tiles for outcome in outcomes if outcome.status == status]
        table.add_row(status, str(len(tiles)), str(sum(tiles)))
    console.print(table)
    lines = []
    empty = [outcome.entry.slide_id for outcome in outcomes if outcome.status != "failed" and outcome.tiles == 0]
    if empty:
        lines.append(f"without tiles, left out of the manifest: {', '.join(empty)}")
    others = set(outcomes[0].path.parent.glob("*.h5")) - {outcome.path for outcome in outcomes}
    if others:
        lines.append(f"{len(others)} files of slides not asked for this time lie there too, and are in no table")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    doubtful = [outcome for outcome in outcomes if outcome.status != "failed" and outcome.message]
    for title, named in (("look at", doubtful), ("failed", failed)):
        if named:
            reasons = Table(title, "why", show_lines=True)
            for outcome in named:
                reasons.add_row(escape(outcome.entry.slide_id), escape(outcome.message))
            console.print(reasons)
    tables = f"tables: {manifest.with_name('summary.csv')}, {manifest}"
    console.print(tables, soft_wrap=True, highlight=False, markup=False)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("slides", "labels", "out"))
    main()


if __name__ == "__main__":
    start()
