"""An adaptive search: Optuna proposes values, points are run, validation says how good they were."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError

if TYPE_CHECKING:
    import optuna

Evaluate = Callable[[list[list[str]]], list[float | None]]
"""Runs one batch of points, given by their overrides; the validation score of each, None where it failed."""
PATIENCE = 3
AGAIN = "again"
"""Attribute of a trial whose values were tried before, and failed or were interrupted: those values."""


class Range(NamedTuple):
    """Values between two ends."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def suggest(self, trial: "optuna.Trial", name: str) -> str:
        """A proposal in as many digits as name a directory well."""
        if self.integer:
            return str(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(name, self.low, self.high, log=self.log):.6g}"


class Choice(NamedTuple):
    """One of several values, as written on the command line."""

    values: tuple[str, ...]

    def suggest(self, trial: "optuna.Trial", name: str) -> str:
        return str(trial.suggest_categorical(name, self.values))


class Search:
    """Trials of one study, kept in a file: the same command resumes until `trials` of them are complete.

    The study belongs to the process that proposes; points are processes of their own and know nothing of it.

    Args:
        storage: SQLite file.
        space: what each swept setting may be.
        fixed: overrides all points share.
        trials: complete trials wanted.
        parallel: trials proposed at a time.
        seeds: a trial's score is the mean over these; empty: one run with the seed that `fixed` says.
        direction: `minimize` or `maximize`.
        seed: of the proposals.

    Raises:
        UserError: Optuna is missing, `trials` or `parallel` is below 1, or the file holds a study of another command.
    """

    def __init__(
        self,
        storage: Path,
        space: Mapping[str, Range | Choice],
        fixed: Sequence[str],
        trials: int,
        parallel: int = 1,
        seeds: Sequence[int] = (),
        direction: str = "minimize",
        seed: int = 0,
    ) -> None:
        at_least("sweep.trials", trials, 1)
        at_least("sweep.parallel", parallel, 1)
        optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage.parent.mkdir(parents=True, exist_ok=True)
        self.space, self.fixed, self.trials, self.seeds = dict(space), list(fixed), trials, list(seeds)
        self.parallel = parallel
        self.study = optuna.create_study(
            storage=f"sqlite:///{storage.absolute()}",
            study_name="kd_mil",
            direction=direction,
            load_if_exists=True,
        )
        begun = len(self.study.trials)  # a search taken up again must not draw the same numbers
        self.study.sampler = optuna.samplers.TPESampler(seed=seed + begun, constant_liar=parallel > 1)
        asked = {"space": {name: str(one) for name, one in space.items()}, "fixed": sorted(fixed), "seeds": self.seeds}
        if self.study.user_attrs.setdefault("asked", asked) != asked or self.study.direction.name.lower() != direction:
            raise UserError(f"{storage} holds a search of another command: name another file with sweep.study=FILE")
        self.study.set_user_attr("asked", asked)
        self._try_again()

    def run(self, evaluate: Evaluate) -> None:
        """Propose and evaluate until there are enough complete trials.

        Raises:
            UserError: `PATIENCE` batches in a row failed as a whole, those apart that had failed before.
        """
        failures = 0
        while (missing := self.trials - self.complete) > 0:
            batch = [self.study.ask() for _ in range(min(self.parallel, missing))]
            points = [self._points(trial) for trial in batch]
            distinct = list({tuple(point): point for of_trial in points for point in of_trial}.values())
            scores = dict(zip(map(tuple, distinct), evaluate(distinct), strict=True))  # trials of few values are twins
            outcomes = [mean([scores[tuple(point)] for point in of_trial]) for of_trial in points]
            for trial, score in zip(batch, outcomes, strict=True):
                self._tell(trial, score)
            if any(score is not None for score in outcomes):
                failures = 0
            elif not all(AGAIN in trial.user_attrs for trial in batch):
                failures += 1
            if failures == PATIENCE:
                raise UserError(f"the last {PATIENCE} batches of the search failed as a whole, it stops; listed above")

    def threads(self, usual: int) -> int:
        """CPU threads of all its runs: `usual` when it began, whatever `parallel` is when it resumes."""
        if "threads" not in self.study.user_attrs:
            self.study.set_user_attr("threads", usual)
        return int(self.study.user_attrs["threads"])

    @property
    def complete(self) -> int:
        """Trials with a score."""
        return len([trial for trial in self.study.trials if trial.state.name == "COMPLETE"])

    @property
    def best(self) -> list[str]:
        """Overrides of the best trial."""
        return list(self.study.best_trial.user_attrs["overrides"])

    def _points(self, trial: "optuna.Trial") -> list[list[str]]:
        chosen = [f"{name}={one.suggest(trial, name)}" for name, one in self.space.items()]
        trial.set_user_attr("overrides", chosen)
        seeds = [[f"seed={seed}"] for seed in self.seeds] or [[]]
        return [[*self.fixed, *chosen, *seed] for seed in seeds]

    def _tell(self, trial: "optuna.Trial", score: float | None) -> None:
        if score is None:
            self.study.tell(trial, state=import_optuna().trial.TrialState.FAIL)
        else:
            self.study.tell(trial, score)

    def _try_again(self) -> None:
        """Ask again, once, for what failed, and for what was under way when the search ended: its runs resume."""
        for trial in self.study.trials:
            if trial.state.name == "RUNNING":
                self.study.tell(trial.number, state=import_optuna().trial.TrialState.FAIL)
        waiting = self.study.get_trials(states=[import_optuna().trial.TrialState.WAITING])
        settled = [trial.user_attrs.get(AGAIN) for trial in waiting]
        settled += [trial.params for trial in self.study.trials if trial.state.name == "COMPLETE"]
        for trial in self.study.trials:
            if trial.state.name == "FAIL" and trial.params and trial.params not in settled:
                settled.append(trial.params)
                self.study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.params})


def mean(scores: Sequence[float | None]) -> float | None:
    """Mean of a trial's runs; None where one of them has no score."""
    defined = [score for score in scores if score is not None and math.isfinite(score)]
    return statistics.fmean(defined) if scores and len(defined) == len(scores) else None


def import_optuna() -> Any:
    """Optuna, or a line on how to get it."""
    try:
        import optuna
    except ImportError as error:
        raise UserError("hydra/sweeper=adaptive needs Optuna: pip install 'kd-mil[optuna]'") from error
    return optuna
