"""Slides to features: `python -m kd_mil.extract slides=DIR_or_CSV out=DIR encoder=lite0`."""

import sys

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, require, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.cli.from_python import make_callable
from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import is_remote
from kd_mil.core.shards import shard_of, with_number_of_shards


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: nothing to read, nowhere to write, a URL to write to or without a cache, or no such shard.
    """
    require(config, slides="a folder, a pattern or a CSV of slides", out="a folder for the results")
    on_a_disk(config, "out", "cache")
    if config.cache == "":
        raise UserError("cache= is empty: give a folder, or cache=null")
    for name in ("slides", "labels"):
        if is_remote(config[name]) and config.cache is None:
            raise UserError(f"{name}={config[name]}: give cache=FOLDER, to which slides are copied one after the other")
    shard_of(config.shard, config.shards)


@command("extract", first=refuse)
def main(config: DictConfig) -> None:
    """Extract what is not extracted yet, then write the tables and print the result of each slide."""
    from kd_mil.jobs import extract

    extract.main(config)


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_number_of_shards(with_quoted_values(sys.argv[1:], ("slides", "labels", "out", "cache")))
    main()


make_callable(__name__)

if __name__ == "__main__":
    start()
