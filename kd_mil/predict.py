"""Predict slides never seen: `python -m kd_mil.predict ckpt=RUN slides=DIR out=DIR`, or `features=`, or `images=`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from kd_mil.cli.arguments import on_a_disk, quoted, with_quoted_values
from kd_mil.cli.command import command
from kd_mil.cli.from_python import make_callable
from kd_mil.core.checks import above, at_least, whole
from kd_mil.core.errors import UserError
from kd_mil.core.shards import shard_of, with_number_of_shards

LEAST = {"picture_side": 1, "instances_per_step": 1, "num_workers": 0, "tile_size_level0": 1}
"""Smallest values of whole numbers."""


def refuse(config: DictConfig) -> None:
    """What the settings alone forbid.

    Raises:
        UserError: a number out of range, no such shard or file of labels, or subgroups without labels.
    """
    on_a_disk(config, "out", "slides", "images", "labels", *(["ckpt"] if isinstance(config.ckpt, str) else []))
    if config.labels is not None and not Path(config.labels).is_file():
        raise UserError(f"labels={config.labels}: no such file; give a CSV slide_id,label[,case_id]")
    if config.subgroups and config.labels is None:
        raise UserError(f"subgroups=[{','.join(config.subgroups)}]: give labels=CSV with these columns")
    for name, least in LEAST.items():
        if config[name] is not None:
            whole(name, config[name], least)
    if config.mpp is not None:
        above("mpp", config.mpp)
    if config.mpp_override is not None:
        at_least("mpp_override", config.mpp_override, 0)
    shard_of(config.shard, config.shards)


@command("predict", first=refuse)
def main(config: DictConfig) -> None:
    """Predict every slide asked for, and end with a table of them."""
    from kd_mil.jobs import predict

    predict.main(config)


def start() -> None:
    """The command line."""
    names = ["slides", "features", "images", "labels", "out"]
    names += [] if any(text.startswith("ckpt=[") for text in sys.argv[1:]) else ["ckpt"]
    sys.argv[1:] = with_number_of_shards(with_quoted_values(with_listed_members(sys.argv[1:]), names))
    main()


def with_listed_members(arguments: Sequence[str]) -> list[str]:
    """The members of `ckpt=[a,b]` in quotes, one by one: names of runs hold commas and equals signs.

    A comma divides where what follows it exists; `ckpt=[runs/fold=0,seed=1,runs/fold=1,seed=1]` names two runs.
    """
    return [
        with_quoted_members(text) if text.startswith("ckpt=[") and text.endswith("]") else text for text in arguments
    ]


def with_quoted_members(text: str) -> str:
    """One setting `ckpt=[...]` with its members in quotes."""
    members: list[str] = []
    for part in text[len("ckpt=[") : -1].split(","):
        if members and not Path(members[-1]).exists():
            members[-1] += f",{part}"
        else:
            members.append(part.strip())
    return f"ckpt=[{','.join(map(quoted, members))}]"


make_callable(__name__)

if __name__ == "__main__":
    start()
