"""Predict slides never seen: `python -m kd_mil.predict ckpt=RUN slides=FOLDER out=DIR`, or `features=FOLDER`."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import command
from kd_mil.core.atomic import require_writable
from kd_mil.core.devices import usable_device
from kd_mil.core.errors import UserError
from kd_mil.prediction.console import one_line_warnings, print_results
from kd_mil.prediction.feature_inputs import feature_inputs
from kd_mil.prediction.inputs import slide_inputs
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import checkpoint_path, load_method
from kd_mil.prediction.outputs import Model, OutputSettings
from kd_mil.prediction.pipeline import Predictor
from kd_mil.slides.formats.reader import reader_class

PATHS = ("ckpt", "slides", "features", "out")
LEAST = {"picture_side": 1, "instances_per_step": 1, "num_workers": 0, "tile_size_level0": 1}
"""Smallest values of whole numbers."""


@command("predict")
def main(config: DictConfig) -> None:
    """Predict every slide asked for, and end with a table of them."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    check(plain)
    out = Path(plain["out"])
    with one_line_warnings():
        predictor, inputs = prepared(plain, out)
        rows = predictor.run(inputs)
        print_results(rows, out)
    if all(row["tiles"] is None for row in rows):
        more = f" ({len(rows) - 1} more slides failed, too)" if len(rows) > 1 else ""
        raise UserError(f"no slide could be read: {rows[0]['note']}{more}")


def prepared(plain: Mapping[str, Any], out: Path) -> tuple[Predictor, Any]:
    """The trained method, ready to write its predictions, and what there is to predict."""
    settings = OutputSettings(**{field.name: plain[field.name] for field in fields(OutputSettings)})
    method, card = load_method(checkpoint_path(plain["ckpt"]), plain["trust"])
    inputs = feature_inputs(plain, card) if plain["features"] is not None else slide_inputs(plain, card)
    thresholds = dict(zip(method.roles, method.bag_thresholds.tolist(), strict=True))
    model = Model(card.class_names, thresholds, card.experiment, card.checkpoint)
    ledger = Ledger(out / ".finished", [card.checkpoint, repr(settings), plain["picture_side"]], plain["overwrite"])
    method.to(usable_device(plain["device"]))
    return Predictor(method, model, out, settings, ledger, plain["on_error"]), inputs


def check(plain: Mapping[str, Any]) -> None:
    """Refuse settings that could only fail later.

    Raises:
        UserError: a number out of range, an unknown backend, or a folder that cannot be written.
    """
    for name, least in LEAST.items():
        if plain[name] is not None and not (isinstance(plain[name], int) and plain[name] >= least):
            raise UserError(f"{name}={plain[name]}: must be a whole number, at least {least}")
    if plain["backend"] is not None:
        reader_class(plain["backend"])
    require_writable(Path(plain["out"]))


def start() -> None:
    """The command line."""
    sys.argv[1:] = with_quoted_values(sys.argv[1:], PATHS)
    main()


if __name__ == "__main__":
    start()
