"""The steps of `kd_mil.chain`: commands that hand files to each other."""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from kd_mil.cli.arguments import quoted
from kd_mil.core.errors import UserError

MISTAKE = 2
"""How a command ends that found a mistake of the user's, and said so."""


class Step(NamedTuple):
    """One command of the chain; each skips what stands there from an earlier start."""

    name: str
    module: str
    arguments: list[str]


def main(config: DictConfig) -> None:
    """Run the steps one after the other; stop where one fails."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    say = Console(soft_wrap=True, highlight=False, markup=False).print
    todo = steps(plain)
    for number, step in enumerate(todo, 1):
        say(f"step {number} of {len(todo)}: {step.name}")
        run(step)
    say(f"masks, outlines for QuPath and segments.csv in {Path(plain['out']) / 'segments'}")


def steps(plain: Mapping[str, Any]) -> list[Step]:
    """The commands of a chain, from its settings."""
    out, slides = Path(plain["out"]), f"slides={quoted(str(plain['slides']))}"
    classes = f"data.classes=[{','.join(map(quoted, plain['classes']))}]"
    both = [f"data.{slides}", classes, *shlex.split(plain["runs"])]
    splits = f"data.slide_splits={quoted(str(out / 'weno' / 'splits.csv'))}"

    def at(key: str, name: str) -> str:
        return f"{key}={quoted(str(out / name))}"

    weno = ["data=slides", *both, *shlex.split(plain["weno"]), at("hydra.run.dir", "weno")]
    mark = [at("ckpt", "weno"), slides, at("out", "tiles"), "on_error=stop"]
    marked = ["experiment=ifkd_from_weno", at("data.predictions", "tiles"), splits]
    ifkd = [*marked, *both, *shlex.split(plain["ifkd"]), at("hydra.run.dir", "ifkd")]
    segment = [at("ckpt", "ifkd"), slides, at("out", "segments"), *shlex.split(plain["segment"])]
    return [
        Step("WENO on slide labels", "run", weno),
        Step("mark tiles", "predict", mark),
        Step("IFKD on marked tiles", "run", ifkd),
        Step("masks and outlines", "segment", segment),
    ]


def run(step: Step) -> None:
    """Run a step in a process of its own, which prints as it goes.

    Raises:
        UserError: it failed; what it said stands above.
    """
    ended = subprocess.run([sys.executable, "-m", f"kd_mil.{step.module}", *step.arguments], check=False).returncode
    if ended:
        what = "found a mistake" if ended == MISTAKE else f"failed with exit code {ended}"
        raise UserError(f"step '{step.name}' {what}, see above; the same command goes on from there")
