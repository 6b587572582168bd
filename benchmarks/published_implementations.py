"""The same models in torchmil on padded bags and here on packed ones: time and memory of a training step."""

import importlib
import math
from typing import Any

import torch

from benchmarks.machine import in_fresh_process, milliseconds, peak_memory_mib, ratio, timed_in_turn
from benchmarks.packing import Batch, large_bags, looped, packed, padded, small_bags
from benchmarks.parts import part

AGGREGATORS = ("abmil", "gated_abmil", "dsmil")
"""Those that compute the same in both (tests/models/aggregators/test_torchmil_adapter.py) and that torchmil can pad."""
COLUMNS = (
    "aggregator", "bags", "torchmil_padded_median_ms", "packed_median_ms", "looped_median_ms", "speedup",
    "torchmil_mib", "packed_mib", "memory",
)  # fmt: skip
LEAST_SPEEDUP, LARGEST_MEMORY = 2.5, 0.6


def run(quick: bool) -> dict[str, Any]:
    """Measure on 16 bags of 50 to 5000 x 1024; quickly: one aggregator on a few small bags."""
    rows = [measure(name, quick) for name in (AGGREGATORS[:1] if quick else AGGREGATORS)]
    return {
        "title": "forward, backward of a batch of bags: packed here, padded in torchmil",
        "note": "Memory: what making the batch and one step add to the process. Without torchmil: this project alone.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [] if quick else [goal for row in rows for goal in goals(row)],
    }


def batch_of(quick: bool) -> Batch:
    """The bags of every measurement."""
    return small_bags(8) if quick else large_bags()


def measure(name: str, quick: bool) -> dict[str, Any]:
    """One row: all ways in turn in this process, then the memory of each in a process of its own."""
    batch = batch_of(quick)
    torch.manual_seed(0)
    aggregator = part("aggregator", name)(in_features=batch.features.shape[1], num_classes=2)
    works = {"packed": packed(aggregator, batch), "looped": looped(aggregator, batch)}
    if theirs := padded(name, batch):
        works["torchmil_padded"] = theirs["padded"]
    samples = timed_in_turn(works, repeats=1 if quick else 9, seconds=20.0)
    row: dict[str, Any] = {"aggregator": name, "bags": batch.name}
    for work, times in samples.items():
        row |= milliseconds(work, times)
    row |= in_fresh_process(packed_memory, part("aggregator", name), quick)
    if "torchmil_padded" in samples:
        row["speedup"] = round(ratio(samples["torchmil_padded"], samples["packed"]), 2)
        row |= in_fresh_process(padded_memory, name, quick)
        if "error" not in row:
            row["memory"] = round(row["packed_mib"] / max(row["torchmil_mib"], 1), 2)
    return row


def packed_memory(factory: Any, quick: bool) -> dict[str, Any]:
    """MiB that the packed batch and a step on it add to this process."""
    before = peak_memory_mib()
    batch = batch_of(quick)
    packed(factory(in_features=batch.features.shape[1], num_classes=2), batch)()
    return {"packed_mib": round(peak_memory_mib() - before)}


def padded_memory(name: str, quick: bool) -> dict[str, Any]:
    """MiB that torchmil's padded batch and a step on it add to this process; the packed original is not counted."""
    importlib.import_module("torchmil.models")
    batch = batch_of(quick)
    before = peak_memory_mib()
    padded(name, batch)["padded"]()
    return {"torchmil_mib": round(peak_memory_mib() - before)}


def goals(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed and memory against torchmil, where it is installed."""
    if "speedup" not in row:
        return []
    return [
        {"goal": f"{row['aggregator']}: >= {LEAST_SPEEDUP:g}x torchmil's padded batches", "value": row["speedup"]}
        | {"reached": row["speedup"] >= LEAST_SPEEDUP},
        {"goal": f"{row['aggregator']}: <= {LARGEST_MEMORY:g}x its memory", "value": row.get("memory")}
        | {"reached": row.get("memory", math.inf) <= LARGEST_MEMORY},
    ]
