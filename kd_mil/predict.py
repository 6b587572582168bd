"""Predict slides never seen: `python -m kd_mil.predict ckpt=RUN slides=FOLDER out=DIR`, or `features=FOLDER`."""

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from kd_mil.cli.command import command
from kd_mil.core.atomic import require_writable
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.prediction.inputs import (
    Config,
    feature_inputs,
    slide_inputs,
)
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import checkpoint_path, load_method, usable_device
from kd_mil.prediction.outputs import Model, OutputSettings
from kd_mil.prediction.pipeline import Predictor
from kd_mil.slides.formats.reader import BACKENDS

PATHS = ("ckpt", "slides", "features", "out")
LEAST = {"picture_side": 1, "instances_per_step": 1, "num_workers": 0, "tile_size_level0": 1}
"""Smallest values of whole numbers."""
SHOWN = 40
"""Slides in the table at the end."""


@command("predict")
def main(config: DictConfig) -> None:
    """Predict every slide asked for, and end with a table of them."""
    with warnings.catch_warnings():
        warnings.showwarning = say  # type: ignore[assignment]
        predict(config)


def predict(config: DictConfig) -> None:
    """The work of `main`."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain)
    settings = OutputSettings(**{field.name: plain[field.name] for field in fields(OutputSettings)})
    method, card = load_method(checkpoint_path(plain["ckpt"]), plain["trust"])
    inputs = feature_inputs(plain, card) if plain["features"] is not None else slide_inputs(plain, card)
    thresholds = dict(zip(method.roles, method.bag_thresholds.tolist(), strict=True))
    model = Model(card.class_names, thresholds, card.experiment, card.checkpoint)
    out = Path(plain["out"])
    ledger = Ledger(out / ".finished", [card.checkpoint, repr(settings), plain["picture_side"]], plain["overwrite"])
    predictor = Predictor(method.to(usable_device(plain["device"])), model, out, settings, ledger, plain["on_error"])
    rows = predictor.run(inputs)
    print_results(rows, out)
    if all(row["tiles"] is None for row in rows):
        more = f" ({len(rows) - 1} more slides failed, too)" if len(rows) > 1 else ""
        raise UserError(f"no slide could be read: {rows[0]['note']}{more}")


def check(plain: Config) -> None:
    """Refuse settings that could only fail later.

    Raises:
        UserError: a number out of range, an unknown backend, or a folder that cannot be written.
    """
    for name, least in LEAST.items():
        if plain[name] is not None and not (isinstance(plain[name], int) and plain[name] >= least):
            raise UserError(f"{name}={plain[name]}: must be a whole number, at least {least}")
    one_of("backend", plain["backend"], (*BACKENDS, None))
    require_writable(Path(plain["out"]))


def say(message: Warning | str, *_: Any) -> None:
    """A warning as one line, beside the progress bars."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def print_results(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """The end of a prediction: a table of the slides, of many only the first, and the slides without a prediction."""
    columns = [name for name in dict.fromkeys(key for row in rows for key in row) if not name.endswith("_threshold")]
    columns.remove("note")
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in columns))
    predicted = [row for row in rows if not row["note"]]
    for row in predicted[:SHOWN]:
        table.add_row(*(cell(row[name]) for name in columns))
    console = Console(width=max(Console().width, 60))
    console.print(table)
    if len(predicted) > SHOWN:
        console.print(f"and {len(predicted) - SHOWN} more slides in slides.csv")
    for row in rows:
        if row["note"]:
            console.print(f"without prediction: {row['slide_id']}: {row['note']}", soft_wrap=True, highlight=False)
    console.print(f"predictions in {out.absolute()}", soft_wrap=True, highlight=False)


def cell(value: Any) -> str:
    """A value as the table shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def quoted(word: str) -> str:
    """An override whose value is a path, quoted: run directories hold `=` and commas, which Hydra reads otherwise."""
    key, equals, value = word.partition("=")
    if key not in PATHS or value in ("", "null") or value[0] in "'\"":
        return word
    return f"{key}{equals}'" + value.replace("'", "\\'") + "'"


def start() -> None:
    """The command line."""
    sys.argv[1:] = map(quoted, sys.argv[1:])
    main()


if __name__ == "__main__":
    start()
