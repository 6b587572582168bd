"""The record of a run: run.json, metrics.json, and the rules of its directory."""

import hashlib
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from kd_mil import __version__
from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "timm", "numpy")
LOCK_PATIENCE = 8.0
"""Seconds."""
EXPECTED: dict[str, tuple[type, ...]] = {
    "status": (str,),
    "config_hash": (str,),
    "started_from": (str,),
    "wall_seconds": (int, float),
    "processes": (int,),
    "threads": (int,),
    "monitor": (str,),
}
"""Of run.json: what is read again, and its types; all may be missing or null."""
REMEDY = "restore it, remove the folder, or run again with overwrite=true"


class RunRecord:
    """The record of one run, in `run.json` of its directory.

    `status` goes from `running` to `finished`, or to `interrupted` where the run was told to stop; a run that was
    killed says `running` still. Nothing is written before `lock`.

    Args:
        directory: run directory.
        config: resolved configuration, plain containers.
        overwrite: forget whatever the directory held.

    Raises:
        UserError: the directory holds a run of another configuration, or one that started from another checkpoint; or
            what is to be overwritten is what to resume from.
    """

    def __init__(self, directory: Path, config: dict[str, Any], overwrite: bool = False) -> None:
        self.directory, self.path, self.overwrite = directory, directory / "run.json", overwrite
        self.config_hash = config_hash(config)
        self.given = None if config["ckpt_path"] is None else str(Path(config["ckpt_path"]).absolute())
        self.started, self.git_commit = time.monotonic(), git_commit()
        self._facts: dict[str, Any] = {}
        self._status: str | None = None
        self._lock = FileLock(directory / ".lock")
        self._read()

    def _read(self) -> None:
        """Look at what the directory holds, and refuse what does not go together."""
        own = self.given is not None and Path(self.given).is_relative_to(self.directory)
        if own and self.overwrite:
            raise UserError(f"overwrite=true would remove {self.given}, which ckpt_path asks for: give one of the two")
        earlier = {} if self.overwrite else read_record(self.path)
        same = earlier.get("config_hash", self.config_hash) == self.config_hash
        if not same and not own:
            raise UserError(
                f"{self.directory} holds a run of another configuration: "
                "choose another hydra.run.dir=..., or overwrite=true"
            )
        if earlier and self.given is not None and not own and earlier.get("started_from") != self.given:
            raise UserError(
                f"{self.directory} holds a run that did not start from ckpt_path={self.given}: "
                "choose another hydra.run.dir=..., or overwrite=true"
            )
        self.finished = same and earlier.get("status") == "finished"
        self.last = self.directory / "checkpoints" / "last.ckpt"
        self.continues = bool(earlier) and same and self.last.exists()
        self.started_from = earlier.get("started_from") if self.continues else self.given
        self.monitor = earlier.get("monitor")
        self.earlier_seconds = earlier.get("wall_seconds", 0.0)
        self.earlier_processes = earlier.get("processes")
        self.earlier_threads = earlier.get("threads")

    @property
    def has_trained(self) -> bool:
        """Whether the directory holds an epoch at least of this configuration."""
        return self.finished or self.continues

    def last_checkpoint(self, processes: int) -> Path | None:
        """Where an interrupted run of the same configuration can resume.

        Raises:
            UserError: it was interrupted with another number of processes, which would visit other bags together.
        """
        if not self.continues:
            return None
        if self.earlier_processes not in (None, processes):
            raise UserError(
                f"the interrupted run in {self.directory} had {self.earlier_processes} process(es), now there are "
                f"{processes}: it would not end as it began; give it as many, or overwrite=true"
            )
        return self.last

    def lock(self) -> None:
        """Keep other processes out of the directory for as long as this one lives, and look at what it holds again.

        The workers of a killed run hold its lock until they notice, hence the patience; another process that held it
        may have finished the run meanwhile.

        Raises:
            UserError: one is at work there, or what it left is not of this configuration.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=LOCK_PATIENCE, poll_interval=0.2)
        except Timeout as error:
            raise UserError(f"another process runs in {self.directory}: wait for it, or end it") from error
        self._read()

    def write(self, status: str, **facts: Any) -> None:
        """Write run.json with the present status and time; `facts` are added to those given before."""
        self._facts |= facts
        self._status = status
        record = {
            "status": status,
            "command": " ".join(["python", "-m", "kd_mil.run", *sys.argv[1:]]),
            "config_hash": self.config_hash,
            "started_from": self.started_from,
            "wall_seconds": round(self.earlier_seconds + time.monotonic() - self.started, 2),
            "git_commit": self.git_commit,
            "versions": {"kd_mil": __version__, "python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
            "threads": torch.get_num_threads(),
        }
        write_json(self.path, record | self._facts)

    def interrupt(self) -> None:
        """Say that the run was told to stop; a record that this process has not begun, or has ended, stays as it is."""
        if self._status == "running":
            self.write("interrupted")


def read_record(path: Path) -> dict[str, Any]:
    """Content of a run.json; empty where there is none.

    Raises:
        UserError: a damaged file.
    """
    record = read_json(path) if path.exists() else {}
    for name, kinds in EXPECTED.items():
        if not isinstance(record.get(name), (*kinds, type(None))):
            raise UserError(f"{path} is damaged ({name} is {record[name]!r}): {REMEDY}")
    return record


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that a run wrote.

    Raises:
        UserError: it is missing, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {REMEDY}") from error
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UserError(f"{path} is damaged, no JSON: {REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged, no JSON object: {REMEDY}")
    return content


def read_metrics(path: Path) -> dict[str, float | None]:
    """Content of a metrics.json: numbers by name, None where one is undefined.

    Raises:
        UserError: it is missing or damaged.
    """
    metrics = read_json(path)
    for name, value in metrics.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{path} is damaged ({name} is {value!r}, no number): {REMEDY}")
    return metrics


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinities become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def config_hash(config: dict[str, Any]) -> str:
    """Hash of what determines a result: the configuration without places, pictures, and the way it was started."""
    apart = ("run_dir", "ckpt_path", "overwrite", "paths", "callbacks", "logger", "sweep")
    fixed = {key: _without_places(value) for key, value in config.items() if key not in apart}
    callbacks = config.get("callbacks", {}).items()
    fixed["callbacks"] = {key: _without_places(value) for key, value in callbacks if value and not _only_shows(value)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:16]


PLACES = ("data_dir", "cache_dir", "dirpath", "directory")
SHOWS = ("kd_mil.callbacks.", "kd_mil.training.progress.", "lightning.pytorch.callbacks.Progress")
"""Where callbacks live that draw and write, and change nothing that is trained."""


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items() if key not in PLACES}
    return value


def _only_shows(callback: dict[str, Any]) -> bool:
    return str(callback.get("_target_")).startswith(SHOWS)


def git_commit() -> str | None:
    """Commit of the source tree, with `+` when it has uncommitted changes; None outside a repository."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
