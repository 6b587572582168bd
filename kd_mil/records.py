"""What a run leaves behind for people and other tools: run.json, metrics.json, and the rules of its directory."""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kd_mil import __version__
from kd_mil.errors import UserError

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf", "timm", "numpy")


class RunRecord:
    """The record of one run, in `run.json` of its directory; `status` goes from `running` to `finished`.

    Args:
        directory: run directory.
        config: resolved configuration, plain containers.
        overwrite: forget whatever the directory held.

    Raises:
        UserError: the directory holds a run of another configuration.
    """

    def __init__(self, directory: Path, config: dict[str, Any], overwrite: bool = False) -> None:
        self.directory, self.path = directory, directory / "run.json"
        self.config_hash = config_hash(config)
        earlier = json.loads(self.path.read_text()) if self.path.exists() and not overwrite else {}
        same = earlier.get("config_hash", self.config_hash) == self.config_hash
        continues = str(config["ckpt_path"] or "").startswith(str(directory))
        if not same and not continues:
            raise UserError(
                f"{directory} holds a run of another configuration: choose another hydra.run.dir=..., or overwrite=true"
            )
        self.finished = same and earlier.get("status") == "finished"
        self.earlier_seconds = earlier.get("wall_seconds", 0.0) if same else 0.0
        self.started = time.monotonic()

    def last_checkpoint(self) -> Path | None:
        """Where an interrupted run of the same configuration can go on."""
        path = self.directory / "checkpoints" / "last.ckpt"
        return path if path.exists() and self.path.exists() else None

    def write(self, status: str, **facts: Any) -> None:
        """Write run.json with the present status; `facts` are added to the standing ones."""
        record = {
            "status": status,
            "command": " ".join(["python", "-m", "kd_mil.run", *sys.argv[1:]]),
            "config_hash": self.config_hash,
            "wall_seconds": round(self.earlier_seconds + time.monotonic() - self.started, 2),
            "git_commit": git_commit(),
            "versions": {"kd_mil": __version__, "python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
            "threads": torch.get_num_threads(),
        }
        write_json(self.path, record | facts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinities become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        json.dump(_plain(content), file, indent=2, allow_nan=False)
    os.replace(file.name, path)


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
    apart = ("run_dir", "ckpt_path", "overwrite", "paths", "callbacks", "logger")
    fixed = {key: _without_places(value) for key, value in config.items() if key not in apart}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items() if key not in ("data_dir", "cache_dir")}
    return value


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
