"""Published tables beside ours: `python -m kd_mil.reproduce paper=weno table=1 [scale=small]`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, require, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.checks import at_least


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: no paper, no seed, or a number out of range.
    """
    require(config, paper="weno, distill_to_label, ifkd or resolution", table="a table or figure, or all")
    on_a_disk(config, "out")
    at_least("number of seeds", len(config.seeds), 1)
    at_least("resamples", config.resamples, 1)
    at_least("parallel", config.parallel, 1)


@command("reproduce", first=refuse)
def main(config: DictConfig) -> None:
    """Run what is missing, collect, and write published numbers beside ours."""
    from kd_mil.jobs import reproduce

    reproduce.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("table", "out", "settings"))
    main()


if __name__ == "__main__":
    start()
