"""Mean and spread over runs, some of which may have no value: an AUROC of one class alone is undefined."""

import statistics
from collections.abc import Sequence


def mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over the defined values; None for a mean of none, and for the spread of one."""
    defined = [value for value in values if value is not None]
    mean = statistics.fmean(defined) if defined else None
    return mean, statistics.stdev(defined) if len(defined) > 1 else None


def defined_mean(values: Sequence[float | None]) -> float | None:
    """Mean; None if any value is undefined, or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
