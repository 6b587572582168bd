"""Train, select on validation, test once: `python -m kd_mil.run experiment=weno_dsmil [key=value ...]`."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import require
from kd_mil.cli.command import command
from kd_mil.cli.trainer import check_trainer
from kd_mil.core.checks import whole
from kd_mil.core.records import RunRecord


def refuse(config: DictConfig) -> float | None:
    """What the settings and the directory of a run alone forbid; the score of one on embedded data that is finished.

    Raises:
        UserError: a setting that cannot be, or the directory holds another run.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    require(plain["paths"], run_root="a folder, or leave it out")
    record = RunRecord(Path(plain["run_dir"]).absolute(), plain, overwrite=config.overwrite)
    check_trainer(plain["trainer"])
    whole("cost_of", config.cost_of, 0)
    if not record.finished:
        return None
    from kd_mil.jobs import finished

    return finished.answer_of(record, plain["data"])


@command("run", first=refuse)
def main(config: DictConfig) -> float | None:
    """One run as design and configuration say; returns the validation score of what is tested."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from kd_mil.sweep.points import run_point

        return run_point(config, HydraConfig.get())
    from kd_mil.jobs import run

    return run.main(config)


if __name__ == "__main__":
    main()
