"""The campaign of killed training: `python -m tests.campaign.training_kills [work=DIR] [kills=100] [only=WORD]`.

A run of every method, one with two ranks and a sweep die by SIGKILL again and again: at random moments, while they
write a checkpoint, just before and after a file gets its name. The same command then finishes, and metrics, tables and
tensors must equal those of an undisturbed run. Each round is written down as soon as it is over: an interrupted
campaign resumes where it stopped.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tests.campaign import runner
from tests.campaign.kills import Round
from tests.campaign.record import ROOT, write_record
from tests.campaign.training_jobs import JOBS, Job
from tests.support.taught import slides, weno_checkpoint
from tests.support.tiny_images import write_pictures

LIMIT = 900.0
"""Seconds that a command may take to finish."""
HANGING = 20.0
"""Seconds after which what a killed process left is ended, too: ranks that wait for it."""
EARLY = 0.4
"""Share of an undisturbed run within which commands of several processes die: what is done is not done again."""
WRITES = 12
"""Files that a short run puts in place, about; an aimed kill picks one of them."""


RECORDED = ("status", "config_hash", "tested_epoch", "epochs", "data_fingerprint")
"""Of run.json: what must be equal."""


class Aimed:
    """Dies at the n-th call of a function of `os` that writing goes through, in the process that it is called in.

    Args:
        function: `fsync`, of checkpoints alone: half of the file is there; or `replace`, which gives a file its name.
        count: at which call.
        after: whether the call is still made.
    """

    def __init__(self, function: str, count: int, after: bool) -> None:
        self.function, self.count, self.after = function, count, after

    def __call__(self) -> None:
        original, calls = getattr(os, self.function), 0

        def deadly(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.count:
                if self.after:
                    original(*arguments)
                elif self.function == "fsync":
                    os.truncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(os, self.function, deadly)


def start(job: Job, folder: Path, before: Callable[[], None] | None = None) -> int:
    """Start a job in `folder`; its process id, which leads a group of its own."""
    if not job.processes:
        return runner.start("run", folder, job.settings, before=before)
    with (folder / "log.out").open("w") as out, (folder / "log.err").open("w") as err:
        line = [sys.executable, "-m", "kd_mil.run", *job.settings]
        own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(line, cwd=folder, env=own, stdout=out, stderr=err, start_new_session=True).pid


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in descendants(int(child)))]


def disturb(job: Job, folder: Path, seconds: float, dice: random.Random) -> list[float]:
    """One life that ends by force, if it does not end before; seconds after the start at which it died."""
    begun = time.monotonic()
    if not job.processes and dice.random() < 0.5:
        aimed = Aimed(dice.choice(["fsync", "replace"]), dice.randint(1, WRITES), dice.random() < 0.5)
        code = runner.wait(start(job, folder, aimed), LIMIT)
        return [round(time.monotonic() - begun, 3)] if code == -signal.SIGKILL else []
    pid = start(job, folder)
    time.sleep(dice.uniform(0, seconds * (EARLY if job.processes else 1)))
    family = descendants(pid)
    if not family or os.waitpid(pid, os.WNOHANG)[0]:
        return []
    victim = dice.choice(family)  # a rank, a point, or the one that started them
    os.kill(victim, signal.SIGKILL)
    died = round(time.monotonic() - begun, 3)
    code = runner.wait(pid, HANGING)
    for left in [one for one in family if Path(f"/proc/{one}").exists()] if code != 0 else []:
        try:
            os.kill(left, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [died]


def content(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a run was killed, by file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("metrics.json", "report.json") or path.suffix == ".csv":
            found[name] = path.read_text()
        elif path.suffix == ".parquet":
            found[name] = pd.read_parquet(path).to_csv()
        elif path.suffix == ".ckpt":
            found[name] = torch.load(path, weights_only=True)["state_dict"]
        elif path.suffix == ".part":
            found[name] = "left over"
        elif path.name == "run.json":
            record = json.loads(path.read_text())
            found[name] = [record[key] for key in RECORDED]
        elif path.suffix == ".png":
            found[name] = "there"
    return found


def equal(found: Any, expected: Any) -> bool:
    """Bit by bit; tensors too, where NaN equals NaN."""
    if not isinstance(expected, dict):
        return bool(found == expected)
    return list(found) == list(expected) and all(
        torch.equal(found[key], value) or torch.allclose(found[key], value, rtol=0, atol=0, equal_nan=True)
        for key, value in expected.items()
    )


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What two folders do not have in common, in a few words."""
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = [name for name in expected if name in found and not equal(found[name], expected[name])]
    pairs = (("missing", missing), ("left over", more), ("different", changed))
    return [f"{what}: {', '.join(names[:4])}" for what, names in pairs if names]


class Campaign:
    """Rounds of one seed in `work`; `rounds_SEED.jsonl` there remembers those that are over."""

    def __init__(self, work: Path, seed: int, only: str = "") -> None:
        self.work, self.seed, self.memory = work, seed, work / f"rounds_{seed}.jsonl"
        self.jobs = {name: job for name, job in JOBS.items() if only in name}
        runner.load_commands()
        if not (work / "pictures").is_dir():
            write_pictures(work / "pictures")
        if not (work / "slides").is_dir():
            (work / "slides").mkdir()
            weno_checkpoint(work / "slides", slides(work / "slides"))
        lines = self.memory.read_text().splitlines() if self.memory.is_file() else []
        self.rounds = [Round(**json.loads(line)) for line in lines]

    def run(self, kills: int) -> list[Round]:
        """Rounds, job by job in turn, until so many processes were killed and every job has had its turn."""
        while len(self.rounds) < len(self.jobs) or sum(len(one.killed) for one in self.rounds) < kills:
            number = len(self.rounds)
            name = list(self.jobs)[number % len(self.jobs)]
            one = self._round(name, number, *self._undisturbed(name))
            self.rounds.append(one)
            with self.memory.open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
            print(f"{number} {name}: {len(one.killed)} killed; {'; '.join(one.complaints) or 'equal'}", flush=True)
        return self.rounds

    def _undisturbed(self, name: str) -> tuple[dict[str, Any], float]:
        """What a run that nobody kills leaves, and its seconds; kept for the rounds and campaigns that follow."""
        folder, noted = self.work / f"{name}_undisturbed", self.work / f"{name}_seconds.txt"
        if not noted.is_file():
            folder, begun = self._fresh(folder.name), time.monotonic()
            code = runner.wait(start(self.jobs[name], folder), LIMIT)
            if code != 0:
                raise SystemExit(f"{name} fails undisturbed:\n{(folder / 'log.err').read_text()[-2000:]}")
            noted.write_text(str(time.monotonic() - begun))
        return content(folder), float(noted.read_text())

    def _round(self, name: str, number: int, expected: dict[str, Any], seconds: float) -> Round:
        dice = random.Random(f"{self.seed} {number}")
        folder, job, killed = self._fresh("round"), self.jobs[name], list[float]()
        for _ in range(dice.randint(4, 9)):
            killed += disturb(job, folder, seconds, dice)
        code = runner.wait(start(job, folder), LIMIT)
        said = (folder / "log.err").read_text().strip()
        complaints = [f"exit code {code}: {said.splitlines()[-1:]}"] if code else []
        if "Traceback" in said:
            complaints.append(f"traceback: {said.splitlines()[-1][:200]}")
        return Round(name, number, 1, killed, complaints + differences(content(folder), expected))

    def _fresh(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def main(arguments: Sequence[str]) -> int:
    settings = dict(text.split("=", 1) for text in arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings.get("work", temporary)).absolute() / "training_kills"
        campaign = Campaign(work, int(settings.get("seed", 0)), settings.get("only", ""))
        rounds = campaign.run(int(settings.get("kills", 100)))
        if "record" in settings:
            write_record(Path(settings["record"]) / "training_kills.json", rounds, work)
    wrong = [one for one in rounds if one.complaints]
    killed = sum(len(one.killed) for one in rounds)
    print(f"{len(rounds) - len(wrong)} of {len(rounds)} rounds equal, {killed} processes killed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
