"""Many runs in one table: `python -m kd_mil.report RUNS [RUNS ...] [baseline=EXPERIMENT] [out=FOLDER]`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import with_quoted_values, with_words_as_list
from kd_mil.cli.command import command
from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: nothing to read, or a number out of range.
    """
    if not config.directories:
        raise UserError("no folder given: python -m kd_mil.report RUNS")
    at_least("resamples", config.resamples, 1)


@command("report", first=refuse)
def main(config: DictConfig) -> None:
    """Collect, compare, and write the page and its tables."""
    from kd_mil.jobs import report

    report.main(config)


def start() -> None:
    """The command line: folders stand by themselves."""
    words = with_words_as_list(sys.argv[1:], "report", "directories")
    sys.argv[1:] = with_quoted_values(words, ("baseline", "out", "x"))
    main()


if __name__ == "__main__":
    start()
