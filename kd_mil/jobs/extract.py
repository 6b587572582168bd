"""Slides to features: the slides of a shard, then tables and a page over all."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_mil.core.errors import UserError
from kd_mil.core.machine.devices import usable_device
from kd_mil.core.machine.processes import reading_processes, usable_cores
from kd_mil.core.machine.threads import VARIABLE
from kd_mil.core.shards import Shard, shard_of
from kd_mil.models.encoders.tile_encoder import TileEncoder
from kd_mil.reporting.tiling_page import write_tiling_page
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.outcome import Outcome, made_by
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.redrawing import draw_missing
from kd_mil.slides.extraction.results import held_to_settings, page_rows, write_tables, write_together
from kd_mil.slides.extraction.slide_cache import SlideCache
from kd_mil.slides.remote_slides import fetched_table, list_all_slides
from kd_mil.slides.slide_labels import with_labels
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.stain import Macenko
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.sweep.copies import copies, slots_of

NOMINAL_MPP = 10.0
"""µm per pixel times nominal magnification."""
ABOUT = 0.1
"""Relative difference up to which a resolution is the one that an encoder was trained on; scanners differ as much."""


def main(config: DictConfig) -> None:
    """Extract what is not extracted yet, then write the tables and print the result of each slide."""
    shard = shard_of(config.shard, config.shards)
    entries = listed_slides(config)
    with one_process_a_gpu(config):
        extract(config, entries, shard)


def listed_slides(config: DictConfig) -> list[SlideEntry]:
    """All slides asked for, with their labels; tables of object stores are copied below the cache.

    Raises:
        UserError: nothing there, a fault of a table, or a URL without `cache=`.
    """
    tables = None if config.cache is None else Path(config.cache) / "tables"
    entries = list_all_slides(config.slides, tables)
    if config.labels is None:
        return entries
    return with_labels(entries, config.labels if tables is None else fetched_table(config.labels, tables))


def extract(config: DictConfig, entries: list[SlideEntry], shard: Shard) -> None:
    """Extract the slides of a shard; the tables are of all slides.

    Raises:
        UserError: a mistake in the settings, or no slide that could be read.
    """
    cutting, out = configured_cutting(config), Path(config.out).absolute()
    encoder = build_encoder(config, cutting.tiling)
    stain: Macenko | None = instantiate(config.get("stain"), _convert_="all")
    how = {name: config[name] for name in ("batch_size", "on_error", "negatives_known", "wait", "hung_minutes")}
    workers = config.num_workers
    if workers is None:
        workers = reading_processes(encoder.device.type) if encoder else usable_cores()
    pictures = Pictures(out, config.picture_side, config.contours, cutting.annotations.geojson_in_bounds)
    mine = [entry for entry in entries if shard.holds(entry.slide_id)]
    how |= {"num_workers": workers, "pictures": pictures, "stain": stain}
    with held_to_settings(out, cutting.attributes() | made_by(encoder, stain)):
        with nullcontext() if config.cache is None else SlideCache(Path(config.cache), config.cache_gib) as cache:
            extraction = Extraction(mine, out, cutting, encoder, **how, cache=cache)
            extraction.run()
            draw_missing(extraction)
        outcomes = extraction.result()
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        if failed and len(failed) == len(outcomes):
            more = f" ({len(failed) - 1} more slides failed, too)" if len(failed) > 1 else ""
            raise UserError(f"no slide could be read: {failed[0].message}{more}")
        everything = write_together(entries, extraction, lambda found: write_results(found, out))
    show(outcomes, everything, out, coordinates_only=encoder is None)


def write_results(outcomes: Sequence[Outcome], out: Path) -> None:
    """Tables and page over all slides."""
    write_tables(outcomes, out)
    write_tiling_page(out / "index.html", f"What was tiled: {out.name}", page_rows(outcomes, out))


@contextmanager
def one_process_a_gpu(config: DictConfig) -> Iterator[None]:
    """With `gpus=N`, the same command in N - 1 further processes; this one waits for their slides, and has GPU 0.

    Raises:
        UserError: fewer GPUs than that.
    """
    if config.gpus in (None, 1):
        yield
        return
    hydra = HydraConfig.get()
    named = any(text.startswith("device=") for text in hydra.overrides.task)
    slots = slots_of(config.gpus, config.device if named else "cuda")
    config.wait = True
    if config.num_workers is None:
        config.num_workers = reading_processes(torch.device(config.device).type, config.gpus)
    folders = [f"--config-dir={one.path}" for one in hydra.runtime.config_sources if one.provider == "command-line"]
    own = ("gpus=", "wait=", "num_workers=")
    theirs = [text for text in hydra.overrides.task if not text.startswith(own)]
    torch.set_num_threads(int(slots[0][VARIABLE]))
    words = ["kd_mil.extract", *folders, *theirs, f"num_workers={config.num_workers}"]
    with copies(words, slots[1:], Path(config.out).absolute() / ".processes"):
        yield


def configured_cutting(config: DictConfig) -> Cutting:
    """How slides become tiles, as configured."""
    parts = {name: instantiate(config[name], _convert_="all") for name in ("tiling", "tissue", "annotations")}
    return Cutting(**parts, backend=config.backend, mpp=config.mpp, mpp_override=config.mpp_override)


def build_encoder(config: DictConfig, tiling: TilingSettings) -> TileEncoder | None:
    """The encoder as configured; None where there is none.

    Raises:
        UserError: it cannot be built, does not take such tiles, or its device is not there.
    """
    if config.get("encoder") is None:
        return None
    plain: dict[str, Any] = OmegaConf.to_container(config.encoder, resolve=True)  # type: ignore[assignment]
    factory = instantiate(config.encoder, _convert_="all")
    if not callable(factory):
        raise UserError("encoder is set without encoder=...: choose one, as in encoder=lite0")
    device = usable_device(config.device)
    encoder = TileEncoder(factory, plain, tiling.tile_size, device, config.precision, config.seed)
    if plain.get("pretrained") is False and plain.get("weights") is None:
        name = encoder.identity["name"]
        warnings.warn(f"{name} has random weights: give encoder.pretrained=true, or take encoder=lite0", stacklevel=2)
    mpp = tiling.mpp or NOMINAL_MPP / cast(float, tiling.magnification)
    if encoder.wanted_mpp and not any(math.isclose(mpp, wanted, rel_tol=ABOUT) for wanted in encoder.wanted_mpp):
        wanted = " or ".join(f"{wanted:g}" for wanted in encoder.wanted_mpp)
        warnings.warn(
            f"{encoder.identity['name']} was trained on {wanted} µm per pixel, but tiles have {mpp:g}: "
            f"tiling.mpp={encoder.wanted_mpp[0]:g} tiling.magnification=null",
            stacklevel=2,
        )
    return encoder


def show(outcomes: Sequence[Outcome], everything: Sequence[Outcome], out: Path, coordinates_only: bool) -> None:
    """The end of the command: counts, failures, and what to do next."""
    console = Console(width=max(Console().width, 80))
    table = Table("slides", "number", "tiles", title="coordinates only (no encoder=...)" if coordinates_only else None)
    for status in ("written", "kept", "failed"):
        tiles = [outcome.tiles for outcome in outcomes if outcome.status == status]
        table.add_row(status, str(len(tiles)), str(sum(tiles)))
    console.print(table)
    for line in remarks(outcomes, everything):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    doubtful = [outcome for outcome in outcomes if outcome.status in ("written", "kept") and outcome.message]
    for title, named in (("look at", doubtful), ("failed", failed)):
        if named:
            reasons = Table(title, "why", show_lines=True)
            for outcome in named:
                reasons.add_row(escape(outcome.entry.slide_id), escape(outcome.message))
            console.print(reasons)
    tables = f"tables: {out / 'summary.csv'}, {out / 'manifest.csv'}; what was tiled: {out / 'index.html'}"
    console.print(tables, soft_wrap=True, highlight=False, markup=False)


def remarks(outcomes: Sequence[Outcome], everything: Sequence[Outcome]) -> list[str]:
    """What is worth a line beside the counts of this process: slides without tiles, or in other hands."""
    lines = []
    done = [outcome for outcome in outcomes if outcome.status in ("written", "kept")]
    if empty := [outcome.entry.slide_id for outcome in done if outcome.tiles == 0]:
        lines.append(f"without tiles, left out of the manifest: {', '.join(empty)}")
    if left := sum(outcome.status == "pending" for outcome in outcomes):
        lines.append(f"{left} slides are in hand of other processes, which will write the tables, too; wait=true waits")
    if len(everything) > len(outcomes):
        counts = Counter(outcome.status for outcome in everything)
        lines.append(
            f"this shard has {len(outcomes)} of {len(everything)} slides; of all, {counts['written'] + counts['kept']} "
            f"are finished, {counts['failed']} failed, {counts['pending']} are not done yet"
        )
    others = {path for outcome in everything[:1] for path in outcome.path.parent.glob("*.h5")}
    if others := others - {outcome.path for outcome in everything}:
        lines.append(f"{len(others)} files of slides not asked for this time lie there too, and are in no table")
    return lines
