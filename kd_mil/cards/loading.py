"""The method that a checkpoint holds, built from its card.

method = load("runs/weno_dsmil/seed=1")
method.predict(features)["student"].instance_probs
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kd_mil.cards.card import refuse_foreign_targets, without_downloads
from kd_mil.cards.moved_targets import with_targets_of_today
from kd_mil.cards.recipes import build
from kd_mil.core.checkpoints import read_with_card
from kd_mil.core.errors import UserError
from kd_mil.core.exported import CONFIG, WEIGHTS
from kd_mil.models.outputs import Prediction

LEEWAY = 10_000_000
"""Weights by which a method may exceed those of its checkpoint, all the same."""


class LoadedMethod(Protocol):
    """What every method offers that `load` gives; methods on bags and on images have more."""

    model_card: dict[str, Any]
    """Networks, data, tiling and training it came from."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, the negative one first."""

    @property
    def thresholds(self) -> dict[str, float]:
        """By role, the probability from which on it decides for the second of two classes."""

    def predict(self, given: np.ndarray | Tensor, /) -> dict[str, Prediction]:
        """By role, the word on one bag (N, ...), or on images (B, 3, H, W), as the training data stored them."""

    def eval(self) -> "LoadedMethod": ...

    def to(self, *args: Any, **kwargs: Any) -> "LoadedMethod": ...


def load(path: str | Path, *, trust: bool = False) -> LoadedMethod:
    """The method of a run, or of one checkpoint, with its weights, on the CPU and in eval mode.

    Whatever data it was trained on. Hydra is not needed, and stays as it was.

    Args:
        path: a run's directory, of which the selected checkpoint is taken, a .ckpt file, or the folder of a model
            exported as `safetensors`.
        trust: build whatever the checkpoint names; False: only what this project and PyTorch define.

    Raises:
        UserError: no such checkpoint, one that is damaged or of another version, or one that names what may not be run.

    Examples:
        >>> method = load("runs/weno_dsmil/default")  # doctest: +SKIP
        >>> method.predict(features)["student"].instance_probs, method.class_names  # doctest: +SKIP
    """
    file = checkpoint_path(str(path))
    return built_method(read_with_card(file), file, trust)


def checkpoint_path(given: str | None) -> Path:
    """The checkpoint file asked for; of a run's directory, the best one, of an exported model its weights."""
    if given is None:
        raise UserError("ckpt is not set: give the .ckpt file, or the directory, of a finished run")
    path = Path(given)
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if (path / CONFIG).is_file():
        raise UserError(f"{path} holds a model exported for other programs: load its run, or a format=safetensors")
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def built_method(checkpoint: dict[str, Any], path: Path, trust: bool) -> Any:
    """The method that the card of a checkpoint describes, with the checkpoint's weights, in eval mode.

    Raises:
        UserError: the card names what may not be run, or the weights are not those of the method, or not finite.
    """
    card = checkpoint["model_card"]
    config = with_targets_of_today(card["method"])
    if not trust:
        refuse_foreign_targets(config, path)
    try:
        factory = build(without_downloads(config))
        refuse_size(factory, card["model_inputs"], checkpoint["state_dict"])
        method = factory(**card["model_inputs"])
        method.load_state_dict(checkpoint["state_dict"])
        method.model_card = card
    except Exception as error:  # whatever constructors make of the values of a card
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit this version of kd_mil: {reason}") from error
    for name, weights in method.named_parameters():
        if not weights.isfinite().all():
            raise UserError(
                f"checkpoint {path}: weights {name} are NaN or infinite: its training failed, choose another"
            )
    return method.eval()


def refuse_size(factory: Callable[..., Any], inputs: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Refuse a card whose networks are far larger than its weights, before memory is taken for them.

    Raises:
        ValueError: they are.
    """
    try:
        with torch.device("meta"):
            sizes = [value.numel() for value in factory(**inputs).state_dict().values()]
    except Exception:  # a class that computes with its weights when it is built, or an error that building will repeat
        return
    if sum(sizes) > 2 * sum(value.numel() for value in state.values()) + LEEWAY:
        raise ValueError(f"its card describes {sum(sizes)} weights, it has {sum(v.numel() for v in state.values())}")
