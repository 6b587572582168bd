"""Experiments without a file here: `experiment=weno_abmil` is `experiment=weno aggregator=abmil`; a user's own."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kd_mil.core.errors import UserError

METHODS = ("weno", "mil", "mhim")
"""Experiments that take any aggregator."""
OWN = "# @package _global_"
NEED_MORE = {"custom", "torchmil"}
"""Aggregators that need a setting of their own, so that a name alone says too little."""


def named_by_rule(config_dir: Path) -> Iterator[tuple[str, str, str]]:
    """(name, method, aggregator) of every experiment `METHOD_AGGREGATOR` that has no file of its own.

    Left out are released settings, which are whole experiments, and mean pooling, whose attention teaches WENO nothing.
    """
    aggregators = {path.stem for path in (config_dir / "aggregator").glob("*.yaml")} - NEED_MORE
    for method, aggregator in product(METHODS, sorted(aggregators)):
        has_file = (config_dir / "experiment" / f"{method}_{aggregator}.yaml").exists()
        if not has_file and not aggregator.endswith("_released") and (method, aggregator) != ("weno", "mean"):
            yield f"{method}_{aggregator}", method, aggregator


def own_experiments(folder: Path) -> Iterator[Path]:
    """Files in a folder that are experiments: YAML whose first line is `# @package _global_`."""
    for path in sorted(folder.glob("*.yaml")):
        with suppress(OSError):  # a folder of that name, a broken link, a file of somebody else's
            with path.open(encoding="utf-8", errors="replace") as file:
                found = file.readline().strip() == OWN
            if found:
                yield path


def read_own(path: Path) -> dict[str, Any]:
    """The content of a user's own experiment.

    Raises:
        UserError: no YAML, or no settings.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable experiment: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a readable experiment: it holds no settings")
    return content  # type: ignore[return-value]


def register_experiments(config_dir: Path, own: Path) -> None:
    """Give Hydra the experiments that need no file, and those in the folder `own` that have no name of ours.

    What cannot be read is left out here, and said by `check_experiment` if it is asked for.
    """
    for path in own_experiments(own):
        if not (config_dir / "experiment" / path.name).exists():
            with suppress(UserError):
                ConfigStore.instance().store(
                    group="experiment", name=path.stem, node=read_own(path), package="_global_"
                )
    for name, method, aggregator in named_by_rule(config_dir):
        node = {"defaults": [method, {"override /aggregator": aggregator}]}
        ConfigStore.instance().store(group="experiment", name=name, node=node, package="_global_")


def check_experiment(arguments: Sequence[str], config_dir: Path, own: Path) -> None:
    """Read the experiment of one's own that a command line asks for.

    Raises:
        UserError: it cannot be read, or an experiment of ours has its name.
    """
    asked = {name for text in arguments if text.startswith("experiment=") for name in text[11:].split(",")}
    for path in own_experiments(own):
        if path.stem in asked:
            if (config_dir / "experiment" / path.name).exists():
                raise UserError(f"{path} has the name of an experiment of kd_mil's: call it something else")
            read_own(path)
