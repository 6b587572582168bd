"""The JSON files of runs, which others may have cut short or changed: read, or one line about what is wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError

TEXT, NUMBER, SCALAR = (str,), (int, float), (str, int, float)
EXPECTED: dict[str, tuple[type, ...]] = {
    "status": TEXT,
    "experiment": TEXT,
    "overrides": (list,),
    "seed": SCALAR,
    "data_fingerprint": TEXT,
    "monitor": TEXT,
    "monitor_mode": TEXT,
    "wall_seconds": NUMBER,
    "instance_source": (dict,),
    "versions": (dict,),
}
"""Kinds of what a report reads of a run.json, where it is there and not null."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        UserError: unreadable, no JSON, or no object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: not readable as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds a {type(content).__name__}, not named values")
    return content


def checked(path: Path, expected: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The object that a file holds, its values of the kinds expected.

    Raises:
        UserError: as `read_json`, or a value of another kind.
    """
    content = read_json(path)
    for name, kinds in expected.items():
        value = content.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise UserError(f"{path} is damaged: {name} is {value!r:.60}")
    for text in content.get("overrides") or []:
        if not isinstance(text, str):
            raise UserError(f"{path} is damaged: overrides hold {text!r:.60}, not text")
    return content
