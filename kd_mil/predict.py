"""Predict slides never seen: `python -m kd_mil.predict ckpt=RUN slides=FOLDER out=DIR`, or `features=FOLDER`."""

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from kd_mil.atomic import require_writable
from kd_mil.checkpoints import read_checkpoint
from kd_mil.cli import command
from kd_mil.data.feature_bags import feature_dtype
from kd_mil.data.tile_cache import Cutting
from kd_mil.errors import UserError
from kd_mil.methods.bag_distiller import BagDistiller
from kd_mil.prediction.card import ModelCard, read_card, refuse_foreign_targets, without_downloads
from kd_mil.prediction.inputs import FeatureInput, PredictionInput, SlideInput, check_features, list_features
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.outputs import Model, OutputSettings
from kd_mil.prediction.pipeline import Predictor
from kd_mil.slides.reader import BACKENDS
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiling import TilingSettings
from kd_mil.slides.tissue import TissueSettings

Config = Mapping[str, Any]
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
    if plain["backend"] not in (None, *BACKENDS):
        raise UserError(f"backend={plain['backend']!r}: choose {' or '.join(BACKENDS)}")
    require_writable(Path(plain["out"]))


def say(message: Warning | str, *_: Any) -> None:
    """A warning as one line, beside the progress bars."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def checkpoint_path(given: str | None) -> Path:
    """The checkpoint file asked for; of a run's directory, the best one."""
    if given is None:
        raise UserError("ckpt is not set: give the .ckpt file, or the directory, of a finished run")
    path = Path(given)
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def load_method(path: Path, trust: bool) -> tuple[BagDistiller, ModelCard]:
    """The method of a checkpoint with its weights, in eval mode, and its card.

    Raises:
        UserError: no such checkpoint, one that prediction cannot use, or one that names what may not be run.
    """
    checkpoint = read_checkpoint(path)
    card = read_card(checkpoint, path)
    if not trust:
        refuse_foreign_targets(card.method, path)
    try:
        method = instantiate(without_downloads(card.method), _convert_="all")(**card.model_inputs)
        method.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:  # what constructors and load_state_dict raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit this version of kd_mil: {reason}") from error
    if not isinstance(method, BagDistiller):
        raise UserError(f"checkpoint {path} holds {type(method).__name__}: prediction is for methods on bags")
    return method.eval(), card


def usable_device(name: str) -> torch.device:
    """The device of this name; UserError where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is no device: cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: PyTorch finds no GPU; take device=cpu")
    return device


def slide_inputs(config: Config, card: ModelCard) -> Sequence[PredictionInput]:
    """The slides asked for, to be cut as in training.

    Raises:
        UserError: no slides, or a checkpoint that was trained on features.
    """
    if config["slides"] is None:
        raise UserError("give slides=FOLDER (or a CSV), or features=FOLDER for a checkpoint trained on features")
    if card.source["kind"] != "tiles":
        raise UserError(
            f"the checkpoint was trained on features ({describe(card.source)}): extract them from the slides in the "
            "same way with `python -m kd_mil.extract`, then give features=FOLDER"
        )
    cutting = Cutting(
        tiling=TilingSettings(**card.source["tiling"]),
        tissue=TissueSettings(**card.source["tissue"]),
        mpp=config["mpp"],
        backend=config["backend"] or card.source["backend"],
    )
    how = config["picture_side"], config["instances_per_step"], config["num_workers"]
    return [SlideInput(entry, cutting, *how) for entry in list_slides(config["slides"])]


def feature_inputs(config: Config, card: ModelCard) -> Sequence[PredictionInput]:
    """The feature files asked for, made as those of the training; slides of the same id give the pictures.

    Raises:
        UserError: no files, a checkpoint that was trained on tiles, or files made in another way.
    """
    if card.source["kind"] != "features":
        raise UserError("the checkpoint was trained on tiles and encodes them itself: give slides=FOLDER, not features")
    entries = [] if config["slides"] is None else list_slides(config["slides"])
    slides = {entry.slide_id: entry for entry in entries}
    files = list_features(config["features"])
    if entries and not any(file.slide_id in slides for file in files):
        raise UserError(f"slides={config['slides']}: none has the id of a feature file, such as {files[0].slide_id!r}")
    inputs = [
        FeatureInput(
            file.slide_id,
            file.path,
            feature_dtype(card.source["dtype"]),
            config["picture_side"],
            slides.get(file.slide_id, file.slide),
            config["mpp"],
            config["backend"] or "openslide",
            config["tile_size_level0"],
            config["instances_per_step"],
        )
        for file in files
    ]
    missing = check_features(inputs, card.source)
    if missing:
        counts = ", ".join(f"{name} ({count} of {len(inputs)} files)" for name, count in missing.items())
        warnings.warn(f"not compared with the training features, some files do not say: {counts}", stacklevel=2)
    return inputs


def describe(source: Mapping[str, Any]) -> str:
    """What is known of the features a checkpoint was trained on, in a few words."""
    names = ("encoder", "weights", "mpp", "magnification", "tile_size", "width")
    return ", ".join(f"{name} {source[name]}" for name in names if source.get(name) is not None)


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
