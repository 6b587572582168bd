"""hydra/launcher=processes: what `python -m kd_mil.run -m` runs its points with."""

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class ProcessLauncher(Launcher):
    """Every point a fresh process, several at a time; finished points are kept. Settings: `conf/sweep`."""

    threads: int | None = None
    """CPU threads of every point; None: as earlier points of the batch, else an equal part."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run one batch of points; a point that fails says so when its value is asked for."""
        from kd_mil.sweep.points import point_of  # at their first use: Hydra imports every plugin for every command
        from kd_mil.sweep.processes import LOG, run_points

        setup_globals()
        refuse_ranks()
        refuse_nothing(job_overrides)
        points = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self._configuration(overrides, number)
            points.append(point_of(config, config.hydra))
        sweep = self.config.sweep
        outcomes = run_points(points, sweep.parallel, sweep.attempts, self.threads)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        summary = f"{len(failed)} of {len(points)} points failed, the same command tries them again:\n" + "\n".join(
            f"  {outcome.point.directory / LOG}: {outcome.message}" for outcome in failed
        )
        if failed:
            print(summary)
        return [returned(outcome, list(overrides), len(failed), len(points))
                for outcome, overrides in zip(outcomes, job_overrides, strict=True)]  # fmt: skip

    def _configuration(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
            config.hydra.runtime.output_dir = str(Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute())
        HydraConfig.instance().set_config(config)
        return config


def returned(outcome, overrides: list[str], failed: int, total: int) -> JobReturn:  # type: ignore[no-untyped-def]
    """The outcome of a point as Hydra's sweepers take it."""
    from kd_mil.core.errors import UserError

    if outcome.status == "failed":
        error = UserError(f"{failed} of {total} points failed, listed above; the same command tries them again")
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=outcome.point.score)


def refuse_nothing(points: Sequence[Sequence[str]]) -> None:
    """A sweep over no values, such as `seed=range(0)`, is a mistake."""
    from kd_mil.core.errors import UserError

    if not points:
        raise UserError("the sweep has no points: a setting is swept over no values at all")


def refuse_ranks() -> None:
    """A sweep is started once: each rank would run all of it."""
    from kd_mil.core.errors import UserError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        raise UserError("torchrun would start this sweep in every rank: start it without, trainer=ddp makes the ranks")
    if int(os.environ.get("SLURM_PROCID", "0")) > 0:
        raise UserError("srun would start this sweep in every task: use one task, or hydra/launcher=submitit_slurm")
