"""Extraction of a slide against the ceiling of its encoder: forward passes alone over as many tiles in memory."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import Clock, milliseconds, ratio, timed_in_turn
from benchmarks.slides import procedural_slide
from kd_mil.cli.resolvers import cuda_or_cpu
from kd_mil.models.encoders.tile_encoder import TileEncoder
from kd_mil.models.encoders.timm_encoder import TimmEncoder
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.planning import plan_slide
from kd_mil.slides.slide_list import SlideEntry
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

COLUMNS = ("slide", "work", "tiles", "tiles_per_s", "bare_per_s", "of_bare")
LEAST_OF_CEILING = 0.95
SIZE, TILE, BATCH, ENCODER = 10_240, 256, 64, "resnet18"
"""A slide of that side at 0.5 µm has some 700 tiles of 256 pixels at that resolution."""
ROUNDS, SECONDS = 3, 150.0
"""Rounds that count, and seconds after which none starts: a quiet machine of two cores needs some 45 a round."""


def run(quick: bool) -> dict[str, Any]:
    """Measure on one procedural slide; quickly: on a small one, with a small network."""
    size, tile, name = (1536, 64, "resnet10t") if quick else (SIZE, TILE, ENCODER)
    row = extraction_row(procedural_slide(size), Cutting(TilingSettings(tile, mpp=0.5)), name, 1 if quick else ROUNDS)
    row = {"slide": f"procedural {size} px"} | row
    goal = {"goal": f"{row['slide']}, {row['work']}: of its encoder's ceiling >= {LEAST_OF_CEILING:g}"}
    reached = {"value": row["of_bare"], "reached": row["of_bare"] >= LEAST_OF_CEILING}
    return {
        "title": "extraction against forward passes",
        "note": "Medians over rounds that take turns. Extraction: tissue, picture, outlines, tiles, features, file. "
        "Bare: forward passes over as many tiles in memory, on as many threads.",
        "columns": COLUMNS,
        "rows": [row],
        "goals": [] if quick else [goal | reached],
    }


def extraction_row(entry: SlideEntry, cutting: Cutting, name: str, rounds: int) -> dict[str, Any]:
    """One slide to its file and the forward passes alone, in turn."""
    device = torch.device(cuda_or_cpu())
    encoder = TileEncoder(partial(TimmEncoder, name=name), {"name": name}, cutting.tiling.tile_size, device)
    tiles = len(plan_slide(entry, cutting).tiles.coords)
    works = {"extraction": extract(entry, cutting, encoder), "ceiling": forward_passes(encoder, tiles)}
    samples = timed_in_turn(works, rounds, SECONDS)
    row: dict[str, Any] = {
        "work": f"{name} on {device.type}, {encoder.precision}",
        "tiles": tiles,
        "tiles_per_s": rate(tiles, samples["extraction"]),
        "bare_per_s": rate(tiles, samples["ceiling"]),
        "of_bare": round(ratio(samples["ceiling"], samples["extraction"]), 3),
    }
    for work, times in samples.items():
        row |= milliseconds(work, times)
    return row


def extract(entry: SlideEntry, cutting: Cutting, encoder: TileEncoder) -> Callable[[], None]:
    """One slide to its file, one process reading."""

    def work() -> None:
        with tempfile.TemporaryDirectory() as out:
            pictures = Pictures(Path(out))
            Extraction([entry], Path(out), cutting, encoder, BATCH, num_workers=1, pictures=pictures).run()

    return work


def forward_passes(encoder: TileEncoder, tiles: int) -> Callable[[], None]:
    """The encoder on batches that are in memory; results reach the host, as features must."""
    side = encoder.tile_size
    pixels = torch.randint(
        0, 256, (BATCH, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def work() -> None:
        results = [encoder(pixels[: min(BATCH, tiles - first)]).half() for first in range(0, tiles, BATCH)]
        torch.cat(results).cpu()

    return work


def rate(tiles: int, samples: list[Clock]) -> float:
    """Tiles per second of the median round."""
    return round(tiles / median(clock.wall for clock in samples), 1)
