"""Predictions against labels, without the model: `python -m kd_mil.evaluate predictions=FOLDER labels=CSV`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, require, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.cli.from_python import make_callable
from kd_mil.core.checks import at_least


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: no predictions, or a number out of range.
    """
    require(config, predictions="the folder that kd_mil.predict wrote, or a run on bags")
    on_a_disk(config, "predictions", "labels", "out", "against")
    at_least("resamples", config.resamples, 1)


@command("evaluate", first=refuse)
def main(config: DictConfig) -> None:
    """Score the predictions, with intervals over cases, and write the tables behind every number."""
    from kd_mil.jobs import evaluate

    evaluate.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("predictions", "labels", "out", "against"))
    main()


make_callable(__name__)

if __name__ == "__main__":
    start()
