"""The record of a run in run.json, and the rules of its directory."""

import hashlib
import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_record, write_json
from kd_mil.core.version import __version__

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "timm", "numpy")
LOCK_PATIENCE = 8.0
"""Seconds."""


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
        self.earlier_threads = earlier.get("threads")

    @property
    def has_trained(self) -> bool:
        """Whether the directory holds an epoch at least of this configuration."""
        return self.finished or self.continues

    @property
    def last_checkpoint(self) -> Path | None:
        """Where an interrupted run of the same configuration can resume, on any number of ranks."""
        return self.last if self.continues else None

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
        import torch

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


def config_hash(config: dict[str, Any]) -> str:
    """Hash of what determines a result: the configuration without places, pictures, and how and on what it runs."""
    apart = ("run_dir", "ckpt_path", "overwrite", "paths", "callbacks", "logger", "sweep", "trainer")
    fixed = {key: _without_places(value) for key, value in config.items() if key not in apart}
    trainer = {key: value for key, value in config.get("trainer", {}).items() if key not in DEVICES}
    fixed["trainer"] = {key: value for key, value in trainer.items() if (key, value) != NOT_COMPILED}
    callbacks = config.get("callbacks", {}).items()
    fixed["callbacks"] = {key: _without_places(value) for key, value in callbacks if value and not _only_shows(value)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:16]


DEVICES = ("accelerator", "devices", "num_nodes", "strategy", "plugins")
"""Settings of the trainer that say which processes share a run: it is the same on any."""
NOT_COMPILED = ("compile", False)
"""What runs of earlier versions were without saying so."""
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
