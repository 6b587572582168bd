"""What predicts: a method, or several as an ensemble, with the operating point that is asked for."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_mil.cards.card import ModelCard
from kd_mil.cards.loading import checkpoint_path
from kd_mil.core.errors import UserError
from kd_mil.core.exported import CONFIG
from kd_mil.core.run_files import read_record, write_json
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.prediction.ensemble import Ensemble, one_card, refuse_other_roles
from kd_mil.prediction.loading import load_method
from kd_mil.prediction.outputs import Model

DEFAULT_POINT = "youden"


def checkpoints_of(given: str | Sequence[str] | None) -> list[Path]:
    """The checkpoint files asked for: of files, of runs, and of folders with runs below them, such as a sweep's.

    Raises:
        UserError: nothing is given, the same checkpoint twice, or a folder without a finished run.
    """
    names = [given] if given is None or isinstance(given, str) else list(given)
    paths = [path for name in names for path in _found(name)]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"ckpt: {path} is given twice")
    if not paths:
        raise UserError("ckpt is not set: give the .ckpt file, or the directory, of a finished run")
    return paths


def _found(name: str | None) -> list[Path]:
    folder = Path(name) if name is not None else None
    whole = ("run.json", "checkpoints", CONFIG)
    if folder is None or not folder.is_dir() or any((folder / name).exists() for name in whole):
        return [checkpoint_path(name)]
    runs = sorted(path.parent for path in folder.rglob("run.json"))
    finished = [run for run in runs if read_record(run / "run.json").get("status") == "finished"]
    if not finished:
        raise UserError(f"ckpt={folder}: no finished run there, and no checkpoints/best.ckpt")
    for run in runs:
        if run not in finished:
            warnings.warn(f"{run} is not finished: it is no member of the ensemble", stacklevel=4)
    return [checkpoint_path(str(run)) for run in finished]


def loaded(given: str | Sequence[str] | None, trust: bool) -> tuple[BagMethod | Ensemble, ModelCard]:
    """The method of one checkpoint, or the ensemble of several, and its card.

    Raises:
        UserError: as `checkpoints_of` and `load_method`, or members that do not belong together.
    """
    paths = checkpoints_of(given)
    found = [load_method(path, trust) for path in paths]
    methods, cards = [method for method, _ in found], [card for _, card in found]
    if len(found) == 1:
        return found[0]
    card = one_card(cards, paths)
    refuse_other_roles(methods, paths)
    return Ensemble(methods), card


def model_of(method: BagMethod | Ensemble, card: ModelCard, point: str | None, calibrated: bool) -> Model:
    """What the outputs say of it.

    Args:
        method: what predicts.
        card: its card.
        point: operating point; None = Youden's.
        calibrated: whether probabilities are also given at their temperature.

    Raises:
        UserError: a point that the checkpoint does not hold.
    """
    thresholds = method.thresholds if point is None else method.operating.thresholds(point)
    return Model(
        card.class_names,
        thresholds,
        method.thresholds_of_instances,
        card.experiment,
        card.checkpoint,
        method.decides,
        point or DEFAULT_POINT,
        dict(method.operating.temperature_of) if calibrated else {},
    )


def write_model(out: Path, method: BagMethod | Ensemble, model: Model) -> None:
    """Write `model.json`, which says how the decisions of a folder came about; `kd_mil.evaluate` reads it."""
    try:
        of_cases: Mapping[str, Any] | None = method.operating.thresholds(model.operating_point, "cases")
    except UserError:  # an older checkpoint, or more than two classes
        of_cases = None
    members = len(method.members) if isinstance(method, Ensemble) else 1
    content = {
        "experiment": model.name,
        "checkpoint": model.checkpoint,
        "members": members,
        "class_names": list(model.class_names),
        "decides": model.decides,
        "operating_point": model.operating_point,
        "thresholds": dict(model.thresholds),
        "case_thresholds": of_cases,
        "case_pooling": method.operating.case_pooling,
        "instance_thresholds": dict(model.instance_thresholds),
        "temperatures": dict(method.operating.temperature_of),
    }
    write_json(out / "model.json", content)
