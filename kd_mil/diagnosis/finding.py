"""Findings: the results of the doctor's checks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from kd_mil.core.errors import UserError

Level = Literal["ok", "note", "warning", "error"]


class Finding(NamedTuple):
    """One line of the doctor's table; an `error` makes its exit code 1."""

    level: Level
    topic: str
    text: str


@contextmanager
def as_finding(found: list[Finding], topic: str) -> Iterator[None]:
    """A mistake that the code refuses becomes an error in the list, and the checks continue."""
    try:
        yield
    except UserError as error:
        found.append(Finding("error", topic, str(error)))
