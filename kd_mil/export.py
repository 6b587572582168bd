"""Features for other tools: `python -m kd_mil.export features=DIR_or_MANIFEST format=FORMAT out=DIR`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, require, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.checks import one_of, share

FORMATS = ("clam", "stamp", "torchmil", "trident", "spatialdata")


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: nothing to read, nowhere to write, an unknown format, or a threshold that is no share.
    """
    require(config, features="a manifest or a folder of features", out="a folder for the results")
    on_a_disk(config, "out")
    one_of("format", config.format, FORMATS)
    share("tumour_threshold", config.tumour_threshold, zero=False)


@command("export", first=refuse)
def main(config: DictConfig) -> None:
    """Write a set of features in another layout."""
    from kd_mil.jobs import export

    export.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], ("features", "labels", "clini", "out"))
    main()


if __name__ == "__main__":
    start()
