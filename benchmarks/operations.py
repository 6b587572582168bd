"""Operations and waits of the training steps of every method: what the host asks a GPU to start, and where it waits.

Counts, no times: small networks on small bags, on a CPU, with the code that a GPU would run. Deeper ones start more.
"""

from collections.abc import Sequence
from statistics import median_low
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.machine import in_fresh_process
from kd_mil.models import segments
from tests.support.dealt_runs import METHODS, RUNS, build
from tests.support.tiny import fit
from tests.support.waits import counted_waits

COLUMNS = ("run", "step", "steps", "operations", "fewest", "most", "waits")
QUICK = ("weno_pixels", "ifkd")


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked to compute, forward, backward and in the optimisers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **kwargs or {})


def run(quick: bool) -> dict[str, Any]:
    """Count in two to six epochs of each of the small runs that the tests of ranks go through."""
    return {
        "title": "Operations and waits of a training step",
        "note": "Medians over the steps of a kind. Waits: where the host would wait for a GPU, the most in one step.",
        "columns": COLUMNS,
        "rows": [row for name in (QUICK if quick else RUNS) for row in counted(name)],
        "goals": [],
    }


def counted(name: str) -> list[dict[str, Any]]:
    """Rows of a run, in a process of its own.

    Raises:
        RuntimeError: the process died.
    """
    found = in_fresh_process(counted_run, name)
    if "error" in found:
        raise RuntimeError(f"{name}: {found['error']}")
    return found["rows"]


def counted_run(name: str) -> dict[str, Any]:
    """A row for each kind of step of a run: on bags, on instances, on images of each phase."""
    torch.set_num_threads(1)  # with two, PyTorch 2.14 crashes under a dispatch mode
    method, data, epochs = build(name)
    step, counts = method.training_step, {}  # type: ignore[var-annotated]

    def watched(batch: Any, *more: Any) -> Any:
        with counted_waits() as waits, Operations() as operations:
            result = step(batch, *more)
        kind = f"{method.phase}, {type(batch).__name__}" if method.phase else type(batch).__name__
        counts.setdefault(kind, []).append((operations.count, sum(waits.lines.values())))
        return result

    method.training_step = watched
    validated = name.startswith("d2l") or name not in METHODS
    with mock.patch.object(segments, "FEW_INSTANCES", 10**9):  # as on a GPU, where nothing goes bag by bag
        fit(method, data, epochs=epochs, limit_val_batches=1.0 if validated else 0)
    return {"rows": [row_of(name, kind, found) for kind, found in counts.items()]}


def row_of(name: str, kind: str, found: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Counts of the steps of one kind."""
    operations, waits = zip(*found, strict=True)
    return {
        "run": name,
        "step": kind,
        "steps": len(found),
        "operations": median_low(operations),
        "fewest": min(operations),
        "most": max(operations),
        "waits": max(waits),
        "operations_of_steps": list(operations),
    }
