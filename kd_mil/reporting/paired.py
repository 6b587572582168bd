"""How far one network is from another on the same cases: differences of runs that share seed and test images."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_mil.reporting.comparison import bounds
from kd_mil.reporting.predictions import held_out
from kd_mil.reporting.resampling import CaseDraws

RESAMPLES = 2000


class Tested(NamedTuple):
    """One network of one run."""

    directory: Path
    role: str
    repetition: Hashable
    """What pairs it with runs of other networks."""


class PairedCases:
    """Draws of whole test cases, the same for all runs whose test sets share cases, so that differences are paired.

    Args:
        directories: of all runs that will be compared.
        resamples: how many draws.
        seed: of the draws.
    """

    def __init__(self, directories: Sequence[Path], resamples: int = RESAMPLES, seed: int = 0) -> None:
        tested = {directory: held_out(directory) for directory in dict.fromkeys(directories)}
        self._draws = CaseDraws({path: known for path, known in tested.items() if known}, resamples, seed)
        self._found: dict[tuple[Path, str, str], np.ndarray | None] = {}

    def difference(
        self, ours: Sequence[Tested], theirs: Sequence[Tested], metric: str
    ) -> tuple[float | None, float | None]:
        """95 % interval of the mean difference over pairs of runs; None without pairs, or what is not on file.

        Args:
            ours, theirs: runs of two networks.
            metric: of images, such as `accuracy` or `auroc`.

        Raises:
            UserError: a damaged table.
        """
        partner: Mapping[Hashable, Tested] = {run.repetition: run for run in theirs}
        pairs = [(run, partner[run.repetition]) for run in ours if run.repetition in partner]
        drawn = [(self._scores(one, metric), self._scores(other, metric)) for one, other in pairs]
        known = [one - other for one, other in drawn if one is not None and other is not None]
        return bounds(np.mean(known, axis=0) if known and len(known) == len(pairs) else None)

    def _scores(self, run: Tested, metric: str) -> np.ndarray | None:
        key = (run.directory, run.role, metric)
        if key not in self._found:
            self._found[key] = self._draws.resample(run.directory, run.role, f"image_{metric}")
        return self._found[key]
