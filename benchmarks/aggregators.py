"""One training step of every aggregator on one bag: time, and peak memory of a process that does nothing else."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import in_fresh_process, milliseconds, peak_memory_mib, timed_in_turn
from kd_mil.methods.base.bag_losses import bag_loss
from kd_mil.models.outputs import MILOutput, critical_logits

SIZES = (1_000, 10_000, 50_000)
WIDTHS = (512, 1024)
PLAIN = ("mean", "max", "abmil", "gated_abmil", "dsmil", "transmil")
RELEASED = ("abmil_released", "dsmil_released")
"""With the encoder of the released code on features in front: a linear layer to 512 with batch normalisation."""

COLUMNS = ("aggregator", "instances", "features", "step_min_ms", "reference_ms", "peak_mib", "reference_mib", "error")

REFERENCE: dict[str, dict[str, tuple[float, ...]]] = {
    "abmil": {"ms_512": (7.5, 84, 558), "ms_1024": (11.3, 133, 831), "mib_1024": (329, 497, 914)},
    "gated_abmil": {"ms_512": (9.4, 105, 700), "ms_1024": (15.0, 149, 953), "mib_1024": (329, 505, 1033)},
    "dsmil": {"ms_512": (2.5, 31, 147), "ms_1024": (4.1, 50, 241), "mib_1024": (317, 386, 677)},
    "transmil": {"ms_512": (413, 2530, 15974), "ms_1024": (431, 2655, 15810), "mib_1024": (878, 1942, 6098)},
    "abmil_released": {"ms_512": (86, 904, 4814), "ms_1024": (89, 920, 5162), "mib_1024": (384, 825, 2077)},
    "dsmil_released": {"ms_512": (136, 1396, 7365), "ms_1024": (135, 1405, 7838), "mib_1024": (400, 830, 2393)},
}
"""Their authors' code at `SIZES`, measured in the same way on 2 idle cores on another occasion. ABMIL: its MNIST
convolutions replaced by a linear layer to 500; DSMIL: values = instances; released: WENO's teachers and encoder."""


class Network(nn.Module):
    """An encoder and an aggregator."""

    def __init__(self, encoder: nn.Module, aggregator: nn.Module) -> None:
        super().__init__()
        self.encoder, self.aggregator = encoder, aggregator

    def forward(self, features: Tensor, sizes: Tensor) -> MILOutput:
        """Encode features (N, D) of bags with sizes (B,), and pool them."""
        return self.aggregator(self.encoder(features), sizes)


def run(quick: bool) -> dict[str, Any]:
    """Measure all aggregators; quickly: the small ones on 1,000 instances."""
    rows = [measure(name, size, width, quick) for name, size, width in cases(quick)]
    return {
        "title": "one step (forward, backward, SGD) on one bag",
        "note": "Reference: the authors' code, on another occasion, on 2 idle cores and a PyTorch without CUDA.",
        "columns": COLUMNS,
        "rows": rows,
        "goals": [] if quick else [goal for name in RELEASED for goal in memory_goals(name, rows)],
    }


def cases(quick: bool) -> Iterator[tuple[str, int, int]]:
    """(aggregator, bag size, feature width) of every measurement."""
    return product(("max", "abmil_released") if quick else PLAIN + RELEASED, SIZES[: 1 if quick else 3], WIDTHS)


def measure(name: str, size: int, width: int, quick: bool = False) -> dict[str, Any]:
    """One row: a fresh process steps a few times."""
    from benchmarks.parts import part

    encoder = part("encoder", "features" if name in RELEASED else "identity")
    seconds = 0.0 if quick else 3.0
    row = {"aggregator": name, "instances": size, "features": width}
    row |= in_fresh_process(measure_steps, encoder, part("aggregator", name), size, width, seconds)
    known = REFERENCE.get(name, {})
    for column, kind in (("reference_ms", f"ms_{width}"), ("reference_mib", f"mib_{width}")):
        row[column] = known[kind][SIZES.index(size)] if kind in known else None
    return row


def measure_steps(
    encoder: Callable[..., nn.Module], aggregator: Callable[..., nn.Module], size: int, width: int, seconds: float
) -> dict[str, Any]:
    """Times and memory of about `seconds` of steps in this process."""
    torch.manual_seed(0)
    front: Any = encoder(instance_shape=(width,))
    network = Network(front, aggregator(in_features=front.out_features, num_classes=2))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    features, sizes, label = torch.randn(size, width), torch.tensor([size]), torch.tensor([1])

    def step() -> None:
        optimizer.zero_grad()
        output = network(features, sizes)
        bag_loss(output.bag_logits, label, critical_logits(output, sizes)).backward()
        optimizer.step()

    samples = timed_in_turn({"step": step}, repeats=7, seconds=seconds)["step"]
    facts = {"peak_mib": round(peak_memory_mib()), "parameters": sum(p.numel() for p in network.parameters())}
    return milliseconds("step", samples) | facts


def memory_goals(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At 50,000 x 1024 less memory than the released head: in all, and on top of 1,000 instances.

    The second does not depend on what the libraries themselves occupy, hundreds of MiB more in some builds than others.
    """
    peaks = {
        row["instances"]: row.get("peak_mib", math.inf)
        for row in rows
        if (row["aggregator"], row["features"]) == (name, 1024)
    }
    small, _, large = REFERENCE[name]["mib_1024"]
    pairs = {
        "peak": (peaks[50_000], large),
        "growth of the peak from 1,000": (peaks[50_000] - peaks[1_000], large - small),
    }
    return [
        {"goal": f"{name}, 50,000 x 1024: {what} < {limit:g} MiB", "value": value, "reached": value < limit}
        for what, (value, limit) in pairs.items()
    ]
