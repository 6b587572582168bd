"""Accuracy against cost over finished runs: `python -m kd_mil.frontier runs=PATTERN [key=value ...]`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.errors import UserError


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: a percentage out of range.
    """
    if not 0 <= config.within < 100:
        raise UserError(f"within={config.within}: percent of the teacher's score, it must lie in [0, 100)")


@command("frontier", first=refuse)
def main(config: DictConfig) -> None:
    """Collect reports, draw the figure, say which student is the cheapest that is good enough."""
    from kd_mil.jobs import frontier

    frontier.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("runs", "out"))
    main()


if __name__ == "__main__":
    start()
