"""Slides to features: `python -m kd_mil.extract slides=DIR_or_CSV out=DIR encoder=timm encoder.name=NAME`."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from kd_mil.cli.command import command
from kd_mil.core.atomic import atomic_path, write_new
from kd_mil.core.errors import UserError
from kd_mil.models.encoders.tile_encoder import TileEncoder
from kd_mil.slides.extraction.extraction import Extraction, Outcome
from kd_mil.slides.extraction.store import refuse_other_settings
from kd_mil.slides.slide_list import list_slides, with_labels
from kd_mil.slides.tiles.cutting import ReadingSettings


@command("extract")
def main(config: DictConfig) -> None:
    """Extract what is not extracted yet, then write the tables and say what became of the slides."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # one line, for people
    for name, hint in (("slides", "a folder, a pattern or a CSV of slides"), ("out", "a folder for the results")):
        if config[name] is None:
            raise UserError(f"{name}= is not set: give {hint}")
    entries = list_slides(config.slides)
    if config.labels is not None:
        entries = with_labels(entries, config.labels)
    settings = reading_settings(config)
    encoder = build_encoder(config, settings.tiling.tile_size)
    out = Path(config.out).absolute()
    extraction = Extraction(
        entries, out, settings, encoder, config.batch_size, config.num_workers, on_error=config.on_error
    )
    made_by = {"encoder": encoder and encoder.identity, "transform": encoder and encoder.transform}
    with settled(out, settings.attributes() | made_by):
        outcomes = extraction.run()
        failed = [one for one in outcomes if one.status == "failed"]
        if len(failed) == len(outcomes):
            more = f" ({len(failed) - 1} more slides failed, too)" if len(failed) > 1 else ""
            raise UserError(f"no slide could be read: {failed[0].message}{more}")
        manifest = write_tables(outcomes, out)
    show(outcomes, manifest, coordinates_only=encoder is None)


def reading_settings(config: DictConfig) -> ReadingSettings:
    """How slides become tiles, as configured."""
    parts = {name: instantiate(config[name], _convert_="all") for name in ("tiling", "tissue", "annotations")}
    return ReadingSettings(**parts, backend=config.backend, mpp=config.mpp)


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
    if str(config.device).startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={config.device}: PyTorch finds no GPU; take device=cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise UserError(f"device={config.device!r} is no device: cpu, cuda or cuda:1") from error
    encoder = TileEncoder(factory, plain, tile_size, device, config.precision, config.seed)
    if plain.get("pretrained") is False:
        warnings.warn(f"{encoder.identity['name']} has random weights: give encoder.pretrained=true", stacklevel=2)
    return encoder


@contextmanager
def settled(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Hold `out` to one set of settings, kept in `out/settings.json`; what nothing came of leaves nothing behind.

    Raises:
        UserError: the folder holds files of other settings, or another process is making some.
    """
    path, made = out / "settings.json", not out.exists()
    try:
        new = write_new(path, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error})") from error
    if not new:
        refuse_other_settings(path, json.loads(path.read_text()), settings)
    try:
        yield
    finally:
        if not (out / ".claims").exists() and not any(out.glob("*/*.h5")):
            path.unlink(missing_ok=True)
            for folder in [out / "features", out / "patches"] + ([out] if made else []):
                with suppress(OSError):
                    folder.rmdir()


def write_tables(outcomes: list[Outcome], out: Path) -> Path:
    """Write `summary.csv`, what became of every slide, and `manifest.csv`, the slides to train on; returns the latter.

    The manifest holds the slides with tiles and, where some have labels, with a label.
    """
    summary = [
        {
            "slide_id": one.entry.slide_id,
            "status": one.status,
            "tiles": one.tiles,
            "path": "" if one.status == "failed" else one.path.relative_to(out),
            "message": one.message,
        }
        for one in outcomes
    ]
    labelled = any(one.entry.label is not None for one in outcomes)
    used = [one for one in outcomes if one.tiles > 0 and (one.entry.label is not None or not labelled)]
    manifest = pd.DataFrame([manifest_row(one, out) for one in used], dtype=object)
    with atomic_path(out / "summary.csv") as path:
        pd.DataFrame(summary).to_csv(path, index=False)
    with atomic_path(out / "manifest.csv") as path:
        manifest.dropna(axis="columns", how="all").to_csv(path, index=False)
    return out / "manifest.csv"


def manifest_row(outcome: Outcome, out: Path) -> dict[str, Any]:
    """A slide's row of the manifest, which serves as a slide list, too."""
    entry = outcome.entry
    with_features = outcome.path.parent.name == "features"
    return {
        "slide_id": entry.slide_id,
        "case_id": entry.case_id,
        "label": entry.label,
        "split": entry.split,
        "feature_path" if with_features else "coords_path": outcome.path.relative_to(out),
        "slide_path": entry.path.absolute(),
        "mpp": entry.mpp,
        "annotation_path": entry.annotation_path and entry.annotation_path.absolute(),
    }


def show(outcomes: list[Outcome], manifest: Path, coordinates_only: bool) -> None:
    """The end of the command: counts, failures, and what to do next."""
    console = Console(width=max(Console().width, 80))
    table = Table("slides", "number", "tiles", title="coordinates only (no encoder=...)" if coordinates_only else None)
    for status in ("written", "kept", "failed"):
        tiles = [one.tiles for one in outcomes if one.status == status]
        table.add_row(status, str(len(tiles)), str(sum(tiles)))
    empty = [one.entry.slide_id for one in outcomes if one.status != "failed" and one.tiles == 0]
    console.print(table)
    if empty:
        console.print(f"without tiles, left out of the manifest: {', '.join(empty)}", soft_wrap=True, highlight=False)
    others = set(outcomes[0].path.parent.glob("*.h5")) - {one.path for one in outcomes}
    if others:
        text = f"{len(others)} files of slides not asked for this time lie there too, and are in no table"
        console.print(text, soft_wrap=True, highlight=False)
    failed = [one for one in outcomes if one.status == "failed"]
    if failed:
        failures = Table("failed", "why", show_lines=True)
        for one in failed:
            failures.add_row(one.entry.slide_id, one.message)
        console.print(failures)
    console.print(f"tables: {manifest.with_name('summary.csv')}, {manifest}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
