"""A point of a sweep: one run, started as a fresh process.

Lightning starts the other ranks of a run by repeating its command. Inside a sweep that command is the whole sweep, and
with an adaptive one the ranks would train with different values without an error. So no run lives in a sweep's process.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from kd_mil.core.errors import UserError
from kd_mil.core.machine.environment import environment
from kd_mil.core.records import RunRecord, config_hash
from kd_mil.core.run_files import read_metrics, read_record

NOT_OF_THE_POINT = ("sweep.", "sweep=")


class Point(NamedTuple):
    """One run that a sweep asks for."""

    overrides: list[str]
    """As on the command line of the run, without what concerns the sweep."""
    directory: Path
    """Absolute run directory."""
    config_hash: str
    """Of the configuration it will have; finished runs of the same are not repeated."""
    config_dirs: tuple[str, ...] = ()
    """Further folders of configuration files, from `--config-dir`."""
    refusal: str = ""
    """Why the directory is not for this point, as its process would say; nothing in there may change then."""

    @property
    def command(self) -> list[str]:
        folders = [part for folder in self.config_dirs for part in ("--config-dir", folder)]
        directory = str(self.directory).replace("\\", "\\\\").replace("'", "\\'")
        return [sys.executable, "-m", "kd_mil.run", *folders, *self.overrides, f"hydra.run.dir='{directory}'"]

    @property
    def record(self) -> dict[str, Any]:
        """run.json of an earlier attempt of the same configuration, or nothing."""
        record = read_record(self.directory / "run.json")
        return record if record.get("config_hash") == self.config_hash else {}

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished" and (self.directory / "metrics.json").is_file()

    @property
    def score(self) -> float | None:
        """Validation metric that selected its checkpoint; None where it is undefined.

        Raises:
            UserError: the point is not finished.
        """
        record = self.record
        if record.get("status") != "finished":
            raise UserError(f"{self.directory} did not finish")
        return read_metrics(self.directory / "metrics.json").get(str(record.get("monitor")))


def point_of(config: DictConfig, hydra: Any) -> Point:
    """The point that a composed configuration describes.

    Args:
        config: of the run; what it says of `hydra` is left out.
        hydra: Hydra's own part, with `runtime.output_dir` set.
    """
    keys = [key for key in config if key != "hydra"]
    plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)  # type: ignore[arg-type]
    sources, directory = hydra.runtime.config_sources, Path(hydra.runtime.output_dir).absolute()
    return Point(
        overrides=[text for text in hydra.overrides.task if not text.startswith(NOT_OF_THE_POINT)],
        directory=directory,
        config_hash=config_hash(plain),
        config_dirs=tuple(str(source.path) for source in sources if source.provider == "command-line"),
        refusal=refusal(directory, plain),
    )


def refusal(directory: Path, config: dict[str, Any]) -> str:
    """Why a run of this configuration may not use the directory; empty where it may."""
    try:
        RunRecord(directory, config, overwrite=config.get("overwrite", False))
    except UserError as error:
        return str(error)
    return ""


def run_point(config: DictConfig, hydra: Any) -> float | None:
    """Run the present point of another launcher (basic, submitit, joblib) as a fresh process; its validation score.

    Raises:
        UserError: it failed.
    """
    point = point_of(config, hydra)
    code = subprocess.run(point.command, env=environment({}), check=False).returncode
    if code != 0:
        raise UserError(f"{point.directory.name} failed with exit code {code}: its output says why")
    return point.score
