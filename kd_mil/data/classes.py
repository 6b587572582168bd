"""Labels as people write them in tables, and the indices of their classes: the same for slides, features and images."""

from collections.abc import Iterable, Mapping, Sequence

from kd_mil.core.checks import check_cell
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import undotted

Classes = Sequence[str] | Mapping[str, int] | None
"""Names of the labels in order, or the index of each (several labels may share one); None = they are 0..C-1."""


def class_index(labels: Iterable[str], classes: Classes, source: str, setting: str = "data.classes") -> dict[str, int]:
    """The index of each label.

    Args:
        labels: those that occur; looked at only where `classes` is None.
        classes: as in `Classes`.
        source: the table, for the message.
        setting: what `classes` is called in the configuration, for the message.

    Raises:
        UserError: indices other than 0..C-1, names that `check_cell` refuses, or no `classes` and labels other than
            these.
    """
    if classes is None:
        return _numbers(sorted(set(labels)), source, setting)
    if isinstance(classes, Mapping):
        index = {str(label): number for label, number in classes.items()}
    else:
        index = {str(label): number for number, label in enumerate(classes)}
    for label in index:
        check_cell("class", label, setting)
    numbers = sorted(set(index.values()))
    if numbers != list(range(len(numbers))):
        raise UserError(f"{setting}={index}: the indices must be 0..C-1 without a gap")
    return index


def _numbers(labels: Sequence[str], source: str, setting: str) -> dict[str, int]:
    """Labels that are the indices themselves; a word among them is left out, and `class_of` names its line."""
    numbers = {number for number in map(undotted, labels) if number.isdecimal()}
    index = {str(number): number for number in range(len(numbers))}
    if not numbers or numbers != set(index):
        raise UserError(
            f"{source}: labels {', '.join(labels)} are not the integers 0..C-1: "
            f"name the classes in order, negative first: {setting}=[{','.join(labels)}]"
        )
    return index


def class_of(label: str, index: Mapping[str, int], where: str) -> int:
    """The class of one label; UserError, beginning with `where`, for a label that is none."""
    name = label if label in index else undotted(label)
    if name not in index:
        raise UserError(f"{where}: label {label!r} is outside the classes; {did_you_mean(label, index)}")
    return index[name]


def class_names(index: Mapping[str, int]) -> tuple[str, ...]:
    """The name of each class in order; labels that share one are joined by a plus."""
    numbers = sorted(set(index.values()))
    return tuple("+".join(label for label in index if index[label] == number) for number in numbers)
