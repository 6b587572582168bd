"""hydra/sweeper=adaptive: intervals and choices on the command line, searched by Optuna."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from kd_mil.sweep.search import Choice, Range


class AdaptiveSweeper(Sweeper):
    """`-m hydra/sweeper=adaptive hpm.threshold=interval(0.5,0.95)`; settings in `conf/sweep`.

    Only this process proposes; every trial is a fresh process of the launcher, scored by the metric that selects its
    checkpoint, which reads validation bags alone.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.settings = hydra_context, config
        self.runner: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search until there are `sweep.trials` complete trials; prints the best."""
        from kd_mil.core.machine.threads import usual_threads
        from kd_mil.sweep.processes import equal_part
        from kd_mil.sweep.search import Search

        parsed = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        space = {item.get_key_element(): space_of(item) for item in parsed if item.is_sweep_override()}
        fixed = [item.input_line or "" for item in parsed if not item.is_sweep_override()]
        settings, directory = self.settings.sweep, Path(self.settings.hydra.sweep.dir)
        search = Search(
            Path(settings.study or directory / "study.sqlite"),
            checked(space),
            fixed=[text for text in fixed if not text.startswith(("sweep.", "sweep="))],
            trials=settings.trials,
            parallel=settings.parallel,
            seeds=settings.seeds or (),
            direction=self._direction(),
        )
        if hasattr(self.runner, "threads"):  # the launcher of this project, which Hydra may have imported twice
            self.runner.threads = search.threads(equal_part(usual_threads(), settings.parallel))
        done = 0

        def evaluate(points: list[list[str]]) -> list[float | None]:
            nonlocal done
            jobs = self.runner.launch(points, initial_job_idx=done)
            done += len(points)
            return [job.return_value if job.status.name == "COMPLETED" else None for job in jobs]

        search.run(evaluate)
        print(f"best of {search.complete} trials: {' '.join(search.best)}  {search.study.best_value:.6g}")
        return search.study.best_value

    def _direction(self) -> str:
        """As for checkpoints: least for a loss, else most; a method's own monitor is a loss."""
        mode = self.settings.monitor_mode
        loss = self.settings.monitor is None or self.settings.monitor.endswith("loss")
        return "minimize" if mode == "min" or (mode is None and loss) else "maximize"


def checked(space: "dict[str, Range | Choice]") -> "dict[str, Range | Choice]":
    """Refuse a search over nothing, or over what repeats a run instead of changing it."""
    from kd_mil.core.errors import UserError

    if not space:
        raise UserError("hydra/sweeper=adaptive: nothing to search, give for example hpm.threshold=interval(0.5,0.95)")
    if "seed" in space:
        raise UserError("hydra/sweeper=adaptive: a seed is no setting to search, give sweep.seeds=[0,1,2]")
    return space


def space_of(override: Override) -> "Range | Choice":
    """What one swept override may be: an interval, or a finite list."""
    from kd_mil.sweep.search import Choice, Range

    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        integer = isinstance(value.start, int) and isinstance(value.end, int)
        return Range(value.start, value.end, "log" in value.tags, integer)
    if isinstance(value, ChoiceSweep) or override.is_discrete_sweep():
        return Choice(tuple(str(value) for value in override.sweep_string_iterator()))
    raise AssertionError(f"{override.input_line}: neither an interval nor a list")
