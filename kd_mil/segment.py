"""Masks and outlines of images and slides: `python -m kd_mil.segment ckpt=RUN images=DIR|slides=DIR out=DIR`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.checks import share


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: a threshold that is no share, or a URL where a path of this machine is meant.
    """
    on_a_disk(config, "out", "ckpt", "images", "slides")
    if config.threshold is not None:
        share("threshold", config.threshold, zero=False, one=False)


@command("segment", first=refuse)
def main(config: DictConfig) -> None:
    """Segment everything asked for; one row each in `segments.csv`."""
    from kd_mil.jobs import segment

    segment.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("ckpt", "images", "slides", "out"))
    main()


if __name__ == "__main__":
    start()
