"""The campaign of killed processes: `python -m tests.campaign.kills [work=DIR] [kills=60] [seed=0] [record=FOLDER]`.

One to four processes of `extract`, `predict` or `segment` work on one folder; at random moments some of them die by
SIGKILL. Then one process finishes, and the folder must hold what an undisturbed process leaves. Each round is written
down as soon as it is over: an interrupted campaign goes on where it stopped.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from tests.campaign import models, runner
from tests.campaign.inputs.features import hdf5
from tests.campaign.inputs.pictures import TILING, aperio, tissue
from tests.campaign.record import write_record

SLIDES, FILES, MOST = 6, 20, 4
"""Inputs of a job, and processes at work on it."""
ROUNDING = 2e-3
"""Two steps of half precision."""
LIMIT = 120.0
"""Seconds that a process may take to finish."""
ENCODER = ("encoder=timm", "encoder.name=resnet10t", "encoder.pretrained=false", "device=cpu", "batch_size=16")


@dataclass(frozen=True)
class Round:
    """One folder that was worked on and disturbed."""

    command: str
    number: int
    processes: int
    killed: list[float]
    """Seconds after the start at which a process died; those that had ended before are not in it."""
    complaints: list[str]


def jobs(inputs: Path, checkpoints: dict[str, Path]) -> dict[str, list[str]]:
    """Settings of each command, but for `out`."""
    slides, features = f"slides={inputs}/slides", f"features={inputs}/features"
    return {
        "extract": [slides, *TILING, *ENCODER],
        "predict": [f"ckpt={checkpoints['features']}", features, "table=csv", "device=cpu"],
        "segment": [f"ckpt={checkpoints['masks']}", slides, "mpp=4.0", "device=cpu"],
    }


def write_inputs(folder: Path) -> None:
    """Slides and feature files, each a little different."""
    (folder / "slides").mkdir(parents=True)
    (folder / "features").mkdir()
    for number in range(SLIDES):
        right = 512 + 64 * (number % 5)
        aperio(
            folder / "slides" / f"s{number}.svs", tissue(box=(256, 256, right, 768)), "AppMag = 10|MPP = 1.0", levels=1
        )
    for number in range(FILES):
        generator = np.random.default_rng(number)
        hdf5(generator.normal(size=(20, models.WIDTH)).astype(np.float32))(folder / "features" / f"f{number}.h5")


def disturb(
    command: str, settings: Sequence[str], folder: Path, processes: int, kills: int, seconds: float, dice: random.Random
) -> list[float]:
    """Start processes, kill some of them, wait for the others; when each of the killed died."""
    begun, running = time.monotonic(), []
    for number in range(processes):
        running.append(runner.start(command, folder, settings, f"log{number}"))
    moments = sorted(dice.uniform(0, seconds) for _ in range(min(kills, processes)))
    killed = []
    for moment in moments:
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        running = [pid for pid in running if not _ended(pid)]
        if running:
            victim = running.pop(dice.randrange(len(running)))
            os.killpg(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            killed.append(round(time.monotonic() - begun, 3))
    for pid in running:
        runner.wait(pid, LIMIT)
    return killed


def _ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def content(folder: Path) -> dict[str, Any]:
    """Files of an output folder by name, without what says where and when they were made."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5":
            with h5py.File(path, "r") as file:
                found[name] = {key: file[key][()] for key in file} | dict(file.attrs)
        elif path.name == "summary.csv":  # written or kept: both are right
            found[name] = pd.read_csv(path).drop(columns="status").to_csv()
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What two folders do not have in common, in a few words."""
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = [name for name in expected if name in found and not equal(found[name], expected[name])]
    pairs = (("missing", missing), ("left over", more), ("different", changed))
    return [f"{what}: {', '.join(names[:4])}" for what, names in pairs if names]


def equal(found: Any, expected: Any) -> bool:
    """Bit by bit, but for features: they come from batches of other sizes, whose sums round differently."""
    if not isinstance(expected, dict):
        return bool(found == expected)
    if found.keys() != expected.keys():
        return False
    exact = all(np.array_equal(found[key], value) for key, value in expected.items() if key != "features")
    return exact and np.allclose(found["features"], expected["features"], rtol=ROUNDING, atol=ROUNDING)


class Campaign:
    """Rounds of one seed in `work`; `rounds.jsonl` there remembers those that are over."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed, self.memory = work, seed, work / f"rounds_{seed}.jsonl"
        runner.load_commands()
        self.checkpoints = models.train_all(work.with_name("faults_models"))
        if not (work / "inputs" / "features" / f"f{FILES - 1}.h5").is_file():
            shutil.rmtree(work / "inputs", ignore_errors=True)
            write_inputs(work / "inputs")
        self.jobs = jobs(work / "inputs", self.checkpoints)
        lines = self.memory.read_text().splitlines() if self.memory.is_file() else []
        self.rounds = [Round(**json.loads(line)) for line in lines]

    def run(self, kills: int) -> list[Round]:
        """Rounds, command by command in turn, until so many processes were killed."""
        undisturbed = {command: self._undisturbed(command) for command in self.jobs}
        while sum(len(one.killed) for one in self.rounds) < kills:
            number = len(self.rounds)
            command = list(self.jobs)[number % len(self.jobs)]
            one = self._round(command, number, *undisturbed[command])
            self.rounds.append(one)
            with self.memory.open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
            print(
                f"{number} {command}: {len(one.killed)} killed; {'; '.join(one.complaints) or 'equal'}",
                flush=True,
            )
        return self.rounds

    def _undisturbed(self, command: str) -> tuple[dict[str, Any], float]:
        folder = self._fresh(f"{command}_undisturbed")
        begun = time.monotonic()
        code = runner.wait(runner.start(command, folder, [*self.jobs[command], "out=out"]), LIMIT)
        if code != 0:
            raise SystemExit(f"{command} fails undisturbed:\n{(folder / 'log.err').read_text()[-2000:]}")
        return content(folder / "out"), time.monotonic() - begun

    def _round(self, command: str, number: int, expected: dict[str, Any], seconds: float) -> Round:
        dice = random.Random(f"{self.seed} {number}")
        folder, settings = self._fresh("round"), [*self.jobs[command], "out=out"]
        processes, killed = dice.randint(1, MOST), []
        for _ in range(dice.randint(1, 3)):
            killed += disturb(command, settings, folder, processes, dice.randint(1, processes), 1.2 * seconds, dice)
        code = runner.wait(runner.start(command, folder, settings), LIMIT)
        complaints = [f"exit code {code}: {(folder / 'log.err').read_text().strip().splitlines()[-1:]}"] if code else []
        for log in folder.glob("log*.err"):
            if "Traceback" in log.read_text():
                complaints.append(f"traceback: {log.read_text().strip().splitlines()[-1][:200]}")
        return Round(command, number, processes, killed, complaints + differences(content(folder / "out"), expected))

    def _fresh(self, name: str) -> Path:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def main(arguments: Sequence[str]) -> int:
    settings = dict(text.split("=", 1) for text in arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings.get("work", temporary)).absolute() / "kills"
        rounds = Campaign(work, int(settings.get("seed", 0))).run(int(settings.get("kills", 60)))
    wrong = [one for one in rounds if one.complaints]
    killed = sum(len(one.killed) for one in rounds)
    print(f"{len(rounds) - len(wrong)} of {len(rounds)} rounds equal, {killed} processes killed")
    if "record" in settings:
        write_record(Path(settings["record"]) / "kills.json", rounds, work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
