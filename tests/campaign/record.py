"""What a campaign leaves: JSON without paths of the machine; `python -m tests.campaign.record FOLDER` prints tables."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def write_record(path: Path, results: Iterable[Any], work: Path) -> None:
    """One line for each result (a dataclass)."""
    lines = [json.dumps(asdict(result), ensure_ascii=False) for result in results]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(f"{work}/", "").replace(f"{ROOT}/", ""))


def fault_table(verdicts: Sequence[dict[str, Any]]) -> str:
    """Kinds of inputs, the commands that saw them, how many there are, and how many went wrong."""
    lines = ["| kind | commands | inputs | wrong |", "|---|---|---:|---:|"]
    for kind in dict.fromkeys(verdict["kind"] for verdict in verdicts):
        of_kind = [verdict for verdict in verdicts if verdict["kind"] == kind]
        commands = ", ".join(dict.fromkeys(verdict["command"] for verdict in of_kind))
        wrong = sum(bool(verdict["complaints"]) for verdict in of_kind)
        lines.append(f"| {kind} | {commands} | {len(of_kind)} | {wrong} |")
    wrong = sum(bool(verdict["complaints"]) for verdict in verdicts)
    return "\n".join([*lines, f"| all | | {len(verdicts)} | {wrong} |"])


def kill_table(rounds: Sequence[dict[str, Any]]) -> str:
    """Rounds and killed processes of each command, and the rounds whose folder was not equal in the end."""
    lines = ["| command | rounds | killed | unequal |", "|---|---:|---:|---:|"]
    for command in dict.fromkeys(one["command"] for one in rounds):
        of_command = [one for one in rounds if one["command"] == command]
        killed, wrong = (
            sum(len(one["killed"]) for one in of_command),
            sum(bool(one["complaints"]) for one in of_command),
        )
        lines.append(f"| {command} | {len(of_command)} | {killed} | {wrong} |")
    return "\n".join(lines)


def rank_table(runs: Sequence[dict[str, Any]]) -> str:
    """The largest differences from one process, of each number of ranks and of runs that others began."""
    lines = ["| ranks | runs | losses | weights | metrics | wrong |", "|---|---:|---:|---:|---:|---:|"]
    kinds = {(one["ranks"], one["resumed_from"]): "" for one in runs}
    for ranks, before in sorted(kinds, key=str):
        of_kind = [one for one in runs if (one["ranks"], one["resumed_from"]) == (ranks, before)]
        largest = (f"{max(one[what] for one in of_kind):.1e}" for what in ("losses", "weights", "metrics"))
        name = f"{ranks}" if before is None else f"{ranks}, begun on {before}"
        wrong = sum(bool(one["complaints"]) for one in of_kind)
        lines.append(f"| {name} | {len(of_kind)} | {' | '.join(largest)} | {wrong} |")
    return "\n".join(lines)


def failures(results: Sequence[dict[str, Any]]) -> str:
    """One line for each result that is not right."""
    named = ((one.get("name") or f"{one['command']}, round {one['number']}", one["complaints"]) for one in results)
    return "\n".join(f"- {name}: {'; '.join(complaints)}" for name, complaints in named if complaints)


TABLES = {
    **{"faults": fault_table, "kills": kill_table, "ranks": rank_table},
    **{"training_kills": kill_table, "wrong_inputs": fault_table},
}
"""By name of the file that a campaign records."""

if __name__ == "__main__":
    for name, table in TABLES.items():
        path = Path(sys.argv[1]) / f"{name}.json"
        if not path.is_file():
            continue
        results = json.loads(path.read_text())
        print(f"## {name.capitalize()}\n\n{table(results)}\n\n{failures(results) or 'Nothing failed.'}\n")
