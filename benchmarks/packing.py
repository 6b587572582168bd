"""Packed batches against a loop over the bags, forward and backward; and padded ones, where torchmil is installed."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.machine import milliseconds, ratio, timed_in_turn
from benchmarks.parts import part
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.models.outputs import critical_logits

AGGREGATORS = ("mean", "max", "abmil", "gated_abmil", "dsmil", "transmil")
COLUMNS = ("aggregator", "bags", "packed_median_ms", "looped_median_ms", "padded_median_ms", "speedup")
LEAST_SPEEDUP = 3.0


class Batch(NamedTuple):
    """Random bags, end to end."""

    name: str
    features: Tensor
    """(N, D)."""
    sizes: Tensor
    """(B,) int64."""
    labels: Tensor
    """(B,) int64."""


def run(quick: bool) -> dict[str, Any]:
    """Measure all aggregators on small and on large bags; quickly: two of them on a few small bags."""
    batches = [small_bags(8 if quick else 64)] + ([] if quick else [large_bags()])
    names = ("mean", "gated_abmil") if quick else AGGREGATORS
    rows = [measure(name, batch, quick) for batch in batches for name in names]
    return {
        "title": "forward and backward of a batch of bags",
        "note": "Padding, packing and splitting are not timed. Padded: torchmil's models of the same size.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [
            {"goal": f"{row['aggregator']}: packed >= {LEAST_SPEEDUP:g}x looped, small bags", "value": row["speedup"]}
            | {"reached": row["speedup"] >= LEAST_SPEEDUP}
            for row in rows
            if row["bags"] == batches[0].name
        ],
    }


def small_bags(count: int) -> Batch:
    """Bags of 1 to 64 instances of 512 features."""
    sizes = torch.randint(1, 65, (count,), generator=torch.Generator().manual_seed(0))
    return random_batch(f"{count} of 1-64 x 512", sizes, 512)


def large_bags() -> Batch:
    """16 bags of 50 to 5000 instances of 1024 features, evenly spread on a logarithmic scale."""
    return random_batch("16 of 50-5000 x 1024", torch.logspace(1.69897, 3.69897, 16).round().long(), 1024)


def random_batch(name: str, sizes: Tensor, width: int) -> Batch:
    """Gaussian features; labels take turns."""
    features = torch.randn(int(sizes.sum()), width, generator=torch.Generator().manual_seed(1))
    return Batch(name, features, sizes, torch.arange(len(sizes)) % 2)


def measure(name: str, batch: Batch, quick: bool = False) -> dict[str, Any]:
    """One row: packed, looped and padded in turn."""
    torch.manual_seed(0)
    aggregator = part("aggregator", name)(in_features=batch.features.shape[1], num_classes=2)
    works = {"packed": packed(aggregator, batch), "looped": looped(aggregator, batch)}
    works |= padded(name, batch)
    samples = timed_in_turn(works, repeats=1 if quick else 9, seconds=3.0)
    row = {"aggregator": name, "bags": batch.name, "speedup": round(ratio(samples["looped"], samples["packed"]), 2)}
    if "padded" in samples:
        row["speedup_over_padded"] = round(ratio(samples["padded"], samples["packed"]), 2)
    for work, times in samples.items():
        row |= milliseconds(work, times)
    return row


def packed(aggregator: nn.Module, batch: Batch) -> Callable[[], None]:
    """All bags at once."""

    def work() -> None:
        aggregator.zero_grad()
        loss(aggregator, batch.features, batch.sizes, batch.labels).backward()

    return work


def looped(aggregator: nn.Module, batch: Batch) -> Callable[[], None]:
    """One bag after the other; gradients add up to those of the packed batch."""
    bags = batch.features.split(batch.sizes.tolist())
    parts = list(zip(bags, batch.sizes.split(1), batch.labels.split(1), strict=True))

    def work() -> None:
        aggregator.zero_grad()
        for features, size, label in parts:
            (loss(aggregator, features, size, label) / len(parts)).backward()

    return work


def loss(aggregator: nn.Module, features: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
    """Teacher's loss on bags with sizes (B,) and labels (B,), their instance stream included."""
    output = aggregator(features, sizes)
    return bag_loss(output.bag_logits, labels, critical_logits(output, sizes))


def padded(name: str, batch: Batch) -> dict[str, Callable[[], None]]:
    """torchmil's model of the same kind on bags padded to the largest; nothing if there is none."""
    if name not in ("abmil", "gated_abmil", "dsmil") or importlib.util.find_spec("torchmil") is None:
        return {}
    from torchmil import models

    width = batch.features.shape[1]
    if name == "dsmil":
        model = models.DSMIL(in_shape=(width,), att_dim=128, nonlinear_q=True)
    else:
        hidden = nn.Sequential(nn.Linear(width, 512), nn.ReLU())
        model = models.ABMIL(in_shape=(width,), att_dim=128, gated=name == "gated_abmil", feat_ext=hidden)
    bags = batch.features.split(batch.sizes.tolist())
    features = nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    mask = torch.arange(features.shape[1]) < batch.sizes[:, None]

    def work() -> None:
        model.zero_grad()
        _, losses = model.compute_loss(batch.labels, features, mask)
        torch.stack(list(losses.values())).sum().backward()

    return {"padded": work}
