"""Who decides about a slide, at which threshold, and how it is said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_mil.evaluation.statistics.calibration import tempered
from kd_mil.evaluation.thresholds import decided, decision_text


@dataclass(frozen=True)
class Model:
    """What the outputs say of the model."""

    class_names: Sequence[str]
    thresholds: Mapping[str, float]
    """Probability of the second class, by role, from which on a bag is decided positive; chosen on validation bags."""
    instance_thresholds: Mapping[str, float]
    """The same of instances, chosen on the labels of validation bags."""
    name: str
    checkpoint: str
    decides: str | None = None
    """The role whose decision counts; None = every role has one."""
    operating_point: str = "youden"
    """How validation chose the thresholds."""
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """By role, of calibrated probabilities; empty = there are none."""

    def wants_decision(self, role: str) -> bool:
        """Whether a role decides."""
        return self.decides in (None, role)


def verdict(role: str, probs: Sequence[float], model: Model) -> str:
    """`student: tumour (tumour 0.73, threshold 0.41)`; of more than two classes, that of the one decided.

    Of a role that does not decide `student: tumour 0.73`.
    """
    if not model.wants_decision(role):
        shown = 1 if len(probs) == 2 else int(np.argmax(probs))
        return f"{role}: {model.class_names[shown]} {probs[shown]:.2f}"
    return f"{role}: {decision_text(probs, model.thresholds[role], model.class_names)}"


def slide_verdict(probs: Mapping[str, Sequence[float]], model: Model) -> str:
    """The one decision on a slide, by the probabilities of its roles: that of the role that decides, else the last."""
    role = model.decides or list(probs)[-1]
    return verdict(role, probs[role], model)


def decision_columns(role: str, probs: Sequence[float], model: Model) -> dict[str, Any]:
    """`{role}_prob` and `{role}_threshold` (of more than two classes `{role}_prob_{class}`), and further columns.

    Those are `{role}_calibrated` where the model has a temperature, and `{role}_decision` if the role decides.
    """
    if len(probs) == 2:
        row: dict[str, Any] = {f"{role}_prob": probs[1], f"{role}_threshold": model.thresholds[role]}
    else:
        row = {f"{role}_prob_{name}": prob for name, prob in zip(model.class_names, probs, strict=True)}
    if role in model.temperatures:
        row |= calibrated_columns(role, probs, model)
    if model.wants_decision(role):
        row[f"{role}_decision"] = model.class_names[decided(probs, model.thresholds[role])]
    return row


def calibrated_columns(role: str, probs: Sequence[float], model: Model) -> dict[str, float]:
    """`{role}_calibrated`, of more than two classes `{role}_calibrated_{class}`: at the temperature of the role."""
    [values] = tempered(np.array([probs]), model.temperatures[role]).tolist()
    if len(values) == 2:
        return {f"{role}_calibrated": values[1]}
    return {f"{role}_calibrated_{name}": value for name, value in zip(model.class_names, values, strict=True)}
