"""The teacher of an earlier run: loaded whole, and only where it has seen what this run's teacher would see.

load_teacher(method.teacher, "runs/resolution_teacher/default/checkpoints/best.ckpt", expected)
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.models.image_classifier import ImageClassifier

READING = "reading"
"""How pixels were resampled: the one fact of a source in which teacher and student may differ."""


def load_teacher(teacher: ImageClassifier, path: str, expected: Mapping[str, Any]) -> None:
    """Load the teacher of an earlier run, whole or not at all.

    Args:
        teacher: gets the weights.
        path: the checkpoint.
        expected: `class_names`, `teacher_downsample`, `source` and `held_out` of the present data.

    Raises:
        UserError: a checkpoint without a teacher, of other classes, of another resolution, tissue or margin, or that
            does not say them, with another network, or trained when other images were held out.
    """
    checkpoint = read_checkpoint(path)
    inputs = checkpoint["model_card"].get("model_inputs")
    weights = {name.removeprefix("teacher."): value for name, value in checkpoint["state_dict"].items()}
    weights = {name: value for name, value in weights.items() if f"teacher.{name}" in checkpoint["state_dict"]}
    if not weights or not isinstance(inputs, Mapping):
        raise UserError(f"method.teacher_ckpt={path} holds no teacher: train one with experiment=resolution_teacher")
    for reason in differences(inputs, expected):
        raise UserError(f"method.teacher_ckpt={path} {reason}")
    try:
        teacher.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"method.teacher_ckpt={path} is a teacher of another network: check method.network") from error


def differences(inputs: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """In what the data of a teacher and those of this run differ, a line for each fact, ending the sentence `CKPT ...`.

    Args:
        inputs: `model_inputs` of the teacher's card.
        expected: as in `load_teacher`.
    """
    for name in ("class_names", "teacher_downsample"):
        here = list(expected[name]) if name == "class_names" else expected[name]
        if inputs.get(name) != here:
            yield f"is a teacher of other data: {name}: {inputs.get(name)} there, {here} here"
    theirs, ours = facts(inputs.get("source")), facts(expected["source"])
    if ours.keys() - {"kind"} and not theirs:
        said = ", ".join(dict.fromkeys(name.split(".")[0] for name in ours if name != "kind"))
        yield f"was written by an earlier version, which did not note {said}: train the teacher again"
    elif theirs:
        for name in dict.fromkeys([*ours, *theirs]):
            if theirs.get(name) != ours.get(name):
                yield f"is a teacher of other data: {name}: {theirs.get(name)} there, {ours.get(name)} here"
    if inputs.get("held_out") != expected["held_out"]:
        yield (
            "is a teacher of other data: held_out: validation and test images differ by their names, image_id; in a "
            "table without that column they are the paths as written: give both tables one, or take the teacher's split"
        )


def facts(source: Any) -> dict[str, Any]:
    """The facts of a source that decide what an image shows, nested ones by dotted names: `tissue.mpp`."""
    found: dict[str, Any] = {}
    for name, value in source.items() if isinstance(source, Mapping) else ():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in facts(value).items()}
        elif name != READING:
            found[name] = value
    return found
