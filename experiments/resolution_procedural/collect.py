"""Record of procedural slides: `python experiments/resolution_procedural/collect.py RUNS OUT.json`.

Tiles: AUROC of every network, its paired 95 % interval over cases against the baseline of its resolution and against
the teacher, and seconds, bytes and GMAC of a slide, each beside the teacher's. Slides: AUROC of slides and of tiles by
WENO at high magnification and by its students. Prints both as tables.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_mil.reporting.paired import PairedCases, Tested
from kd_mil.reporting.runs import Run

COSTS = ("seconds", "bytes", "gmac")


def role_of(run: Run) -> str:
    """The network that a run is about."""
    return "student" if "student" in run.roles else next(iter(run.roles))


def values(runs: Sequence[Run], name: str) -> list[float]:
    """A metric of each run, `{role}` standing for its role."""
    found = [run.metrics.get(name.format(role=role_of(run))) for run in runs]
    return [value for value in found if value is not None]


def tested(runs: Sequence[Run]) -> list[Tested]:
    """Runs paired by seed."""
    return [Tested(run.directory, role_of(run), run.record.get("seed")) for run in runs]


def tiles(groups: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """An entry for each kind and resolution of the networks on tiles."""
    cases = PairedCases([run.directory for runs in groups.values() for run in runs])
    teacher = groups["teacher"]
    entries = []
    for name, runs in groups.items():
        kind, _, resolution = name.partition(" ")
        baseline = groups.get(f"baseline {resolution}", [])
        entry: dict[str, Any] = {"kind": kind, "resolution": resolution, "seeds": len(runs)}
        for score in ("auroc", "accuracy"):
            entry[score] = values(runs, f"test/{{role}}/image_{score}")
            entry[f"{score}_less_teacher"] = cases.difference(tested(runs), tested(teacher), score)
            entry[f"{score}_less_baseline"] = cases.difference(tested(runs), tested(baseline), score)
        for cost in COSTS:
            own = values(runs, f"cost/{{role}}/{cost}")
            entry[cost] = statistics.fmean(own) if own else None
        entries.append(entry)
    return entries


def slides(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """An entry for WENO and for each size of its students' tiles."""
    entries = []
    for name in dict.fromkeys(label(run) for run in runs):
        alike = [run for run in runs if label(run) == name]
        scores = {
            score: values(alike, f"test/{{role}}/{score}")
            for score in ("bag_auroc", "instance_auroc", "instance_auroc_within")
        }
        costs = {cost: values(alike, f"cost/all/{cost}") or features_cost(alike, cost) for cost in COSTS}
        entries.append({"kind": name} | scores | {cost: statistics.fmean(v) for cost, v in costs.items() if v})
    return entries


def features_cost(runs: Sequence[Run], cost: str) -> list[float]:
    """What `features_cost.py` has measured of models of features."""
    paths = [run.directory / "features_cost.json" for run in runs]
    return [json.loads(path.read_text())[cost] for path in paths if path.is_file()]


def label(run: Run) -> str:
    """`weno`, or `resolution_weno size=16`."""
    return f"{run.directory.parent.name} {run.directory.name.split('seed=')[0].strip(',')}".strip()


def finished(root: Path, kinds: Sequence[str]) -> list[Run]:
    """The finished runs of some kinds."""
    found = [Run(path) for kind in kinds for path in sorted((root / kind).glob("*")) if path.is_dir()]
    return [run for run in found if run.finished]


def markdown(entries: Sequence[dict[str, Any]]) -> str:
    """A table with all that an entry holds, numbers to three digits."""
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return "\n".join(
        [*lines, *("| " + " | ".join(cell(entry.get(name)) for name in names) + " |" for entry in entries)]
    )


def cell(value: Any) -> str:
    """A value of an entry, in short."""
    if isinstance(value, list | tuple):
        return " ".join(cell(one) for one in value)
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write the record, print its tables."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    groups: dict[str, list[Run]] = {}
    for run in finished(root, ("teacher", "baseline", "kd", "kd_ad", "kd_ad_level0")):
        groups.setdefault(label(run), []).append(run)
    of_slides = finished(root, ("weno_lite0", "resolution_lite0", "weno", "resolution_weno"))
    record = {"tiles": tiles(groups), "slides": slides(of_slides)}
    runs = [*(run for some in groups.values() for run in some), *of_slides]
    record["git_commits"] = sorted({str(run.record.get("git_commit")) for run in runs})  # type: ignore[assignment]
    out.write_text(json.dumps(record, indent=1) + "\n")
    for entries in (record["tiles"], record["slides"]):
        print(markdown(entries), end="\n\n")


if __name__ == "__main__":
    main()
