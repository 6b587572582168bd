"""The campaign of odd and hostile inputs: `python -m tests.campaign.faults [work=DIR] [only=WORD] [record=FOLDER]`."""

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.campaign import models, runner
from tests.campaign.batches import Batch, batches
from tests.campaign.cases import Case, Result, table_text
from tests.campaign.checks import done, judged
from tests.campaign.inputs import (
    checkpoints,
    doctor,
    exports,
    ids,
    lists,
    overlays,
    sources,
    stores,
    training,
)
from tests.campaign.record import write_record

ALONE = (lists, ids, sources, stores, overlays, doctor, training, exports)
DEPTH = "above/above/above/above"
"""Folders above that of a case, so that a path that climbs out of it is noticed and hurts nobody."""
CODES = {False: (0, 2), True: (0, 1, 2)}
"""Exit codes that a command may have; `doctor` says by 1 that it found something."""
LIMIT = {"batch": 900.0, "alone": 180.0}
"""Seconds, many times what it takes: the machine may be busy."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case."""

    name: str
    kind: str
    command: str
    complaints: list[str]
    seconds: float
    """0 where it was done with others."""


class Campaign:
    """Runs cases in `work`; `verdicts.jsonl` there remembers them, so that an interrupted campaign goes on.

    Args:
        work: a folder of its own; another, or none, for another version of the code.
        only: a part of the names or kinds of the cases to run, which are then run whatever is remembered.
    """

    def __init__(self, work: Path, only: str = "") -> None:
        self.work, self.only = work, only
        self.place = work / DEPTH
        self.place.mkdir(parents=True, exist_ok=True)
        self.memory = work / "verdicts.jsonl"
        lines = self.memory.read_text().splitlines() if self.memory.is_file() and not only else []
        self.verdicts = {verdict.name: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}
        runner.load_commands()
        self.checkpoints = models.train_all(work.with_name(f"{work.name}_models"))
        self.checkpoints["masks_again"] = models.with_other_weights(self.checkpoints["masks"])

    def run(self) -> list[Verdict]:
        """All cases that have no verdict yet; the verdicts of all."""
        for batch in batches():
            cases = [case for case in batch.cases if self.only in f"{batch.name}: {case.name} [{case.kind}]"]
            if cases:
                self.run_batch(replace(batch, cases=cases))
        alone = [case for module in ALONE for case in module.cases()]
        for case in (*alone, *checkpoints.cases(self.checkpoints)):
            if case.name not in self.verdicts and self.only in f"{case.command}: {case.name} [{case.kind}]":
                self.run_alone(case)
        return list(self.verdicts.values())

    def run_batch(self, batch: Batch) -> None:
        """All cases together; where they do not get through, one after the other, so that each has its verdict."""
        together, name = None, f"{batch.name}: {len(batch.cases)} files in one folder"
        if name not in self.verdicts:
            together = self._command(batch, batch.cases, LIMIT["batch"])
            blame = general(together) or [f"the good one is {line}" for line in done("good")(together)]
            self._note(Verdict(name, "batches", batch.command, blame, together.seconds))
        got_through = not self.verdicts[name].complaints
        for case in batch.cases:
            if f"{batch.name}: {case.name}" in self.verdicts:
                continue
            own = together if together and got_through else self._command(batch, [case], LIMIT["alone"])
            complaints = general(own) or judged(case.check, own)
            complaints += [f"and the good one is {line}" for line in done("good")(own)]
            seconds = 0.0 if own is together else own.seconds
            self._note(Verdict(f"{batch.name}: {case.name}", case.kind, batch.command, complaints, seconds))

    def _command(self, batch: Batch, cases: Sequence[Case], limit: float) -> Result:
        folder = self._folder()
        rows = [case.write(folder / "in") for case in cases] + [batch.companion(folder / "in")]
        if any(isinstance(row, dict) for row in rows):
            (folder / "in" / "list.csv").write_text(table_text(rows))
        return runner.run(batch.command, folder, self._filled(batch.settings), self.work, limit)

    def run_alone(self, case: Case) -> None:
        folder = self._folder()
        case.write(folder / "in")
        for command, *settings in case.before:
            runner.run(command, folder, self._filled(settings), self.work, LIMIT["alone"])
        if case.between is not None:
            case.between(folder / "in")
        result = runner.run(case.command, folder, self._filled(case.settings), self.work, LIMIT["alone"])
        complaints = general(result) or judged(case.check, result)
        self._note(Verdict(case.name, case.kind, case.command, complaints, result.seconds))

    def _folder(self) -> Path:
        folder = self.place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "in").mkdir(parents=True)
        return folder

    def _filled(self, settings: Sequence[str]) -> list[str]:
        for name, path in self.checkpoints.items():
            settings = [f"ckpt={path}" if text == f"ckpt=@{name}" else text for text in settings]
        return list(settings)

    def _note(self, verdict: Verdict) -> None:
        self.verdicts[verdict.name] = verdict
        if not self.only:
            with self.memory.open("a") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")
        if verdict.complaints:
            print(f"{verdict.name} [{verdict.kind}]: {'; '.join(verdict.complaints)}", flush=True)


def general(result: Result) -> list[str]:
    """What is wrong whatever the input."""
    complaints = [f"wrote outside out/: {', '.join(result.outside[:3])}"] if result.outside else []
    if result.code == -9:
        complaints.append(f"no end after {result.seconds:.0f} s")
    elif "Traceback (most recent call last)" in result.stderr or result.code not in CODES[result.command == "doctor"]:
        lines = [line.strip() for line in result.stderr.splitlines()]
        frames = [line for line in lines if line.startswith('File "') and "/kd_mil/" in line]
        errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        error, frame = errors[-1][:200] if errors else "no exception named", frames[-1] if frames else "?"
        complaints.append(f"exit code {result.code}, traceback: {error} (at {frame})")
    return complaints


def main(arguments: Sequence[str]) -> int:
    settings = dict(text.split("=", 1) for text in arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings.get("work", temporary)).absolute() / "faults"
        verdicts = Campaign(work, settings.get("only", "")).run()
    wrong = [verdict for verdict in verdicts if verdict.complaints]
    print(f"{len(verdicts) - len(wrong)} of {len(verdicts)} right, in {time.monotonic() - begun:.0f} s")
    if "record" in settings:
        write_record(Path(settings["record"]) / "faults.json", verdicts, work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
