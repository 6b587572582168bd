"""The campaign of ranks: `python -m tests.campaign.ranks [record=DIR] [only=WORD]`.

Every small run of `tests.support.dealt_runs` on 1, 2, 3 and 4 gloo ranks, against one process: losses of every step
within 1e-5, weights within 1e-4 of their norm, metrics within 1e-5. Each is then resumed in its middle on another
number of ranks, and must end likewise.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.campaign.record import write_record
from tests.support.dealt_runs import RUNS, differences, train, train_rank
from tests.support.ranks import results_of, start_ranks

NUMBERS = (1, 2, 3, 4)
LIMITS = {"losses": 1e-5, "weights": 1e-4, "metrics": 1e-5}


@dataclass(frozen=True)
class Compared:
    """How far a run on some ranks is from that of one process."""

    name: str
    ranks: int
    resumed_from: int | None
    """Ranks of the run whose first epochs it goes on from; None: it began itself."""
    losses: float
    weights: float
    metrics: float
    complaints: list[str]


def on_ranks(names: Sequence[str], ranks: int, folder: Path, start: Path | None = None) -> list[dict[str, Any]]:
    """What each rank makes of the runs; checkpoints of each epoch stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    given = None if start is None else str(start)
    return results_of(start_ranks(train_rank, ranks, list(names), str(folder), given, ranks=ranks), folder)


def compared(name: str, ranks: int, alone: Any, by_rank: Sequence[Any], resumed_from: int | None = None) -> Compared:
    """The differences of a run, and which are too large; ranks must not differ at all."""
    found = differences(alone, by_rank[0][name])
    complaints = [f"{what}: {value:.1e}" for what, value in found.items() if not value <= LIMITS[what]]
    states = [run[name]["state"] for run in by_rank]
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor) and any(not same(value, state[key]) for state in states[1:]):
            complaints.append(f"ranks differ: {key}")
    return Compared(name, ranks, resumed_from, **found, complaints=complaints)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal to the last bit, where NaN equals NaN."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def campaign(names: Sequence[str], work: Path) -> list[Compared]:
    """All comparisons, those of one run after the other."""
    by_number = {ranks: on_ranks(names, ranks, work / f"{ranks}") for ranks in NUMBERS}
    results = []
    for name in names:
        alone = train(name)
        results += [compared(name, ranks, alone, by_number[ranks]) for ranks in NUMBERS]
        for before, after in ((3, 1), (1, 4), (4, 2)):
            start = work / f"{before}" / name / "epoch0.ckpt"
            resumed = on_ranks([name], after, work / f"{name}_{before}_{after}", start)
            results.append(compared(name, after, alone, resumed, resumed_from=before))
        wrong = [one for one in results if one.name == name and one.complaints]
        print(f"{name}: {'; '.join(str(one) for one in wrong) or 'equal'}", flush=True)
    return results


def main(arguments: Sequence[str]) -> int:
    """Run the campaign; 1 where a run is not that of one process."""
    settings = dict(text.split("=", 1) for text in arguments)
    torch.set_num_threads(1)
    names = [name for name in RUNS if settings.get("only", "") in name]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings.get("work", temporary)).absolute() / "ranks"
        results = campaign(names, work)
        if "record" in settings:
            write_record(Path(settings["record"]) / "ranks.json", results, work)
    wrong = sum(bool(one.complaints) for one in results)
    print(f"{len(results) - wrong} of {len(results)} runs on ranks are those of one process")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
