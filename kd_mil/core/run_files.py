"""The JSON files of a run, which others may have cut short or changed: read, or one line about what is wrong."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError

REMEDY = "restore it, remove the folder, or run again with overwrite=true"
EXPECTED: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("status", "config_hash", "started_from", "monitor", "monitor_mode", "select"), (str,)),
    **dict.fromkeys(("experiment", "data_fingerprint", "device", "git_commit", "command"), (str,)),
    **dict.fromkeys(("processes", "threads", "epochs", "tested_epoch"), (int,)),
    **dict.fromkeys(("instance_source", "versions", "data_counts"), (dict,)),
    "wall_seconds": (int, float),
    "seed": (str, int, float),
    "overrides": (list,),
}
"""Of run.json: what is read again, and its types; all may be missing or null."""
MOST = {"processes": 100_000, "threads": 10_000}
"""Counts that nobody has; at least 1 they all are."""


def read_record(path: Path) -> dict[str, Any]:
    """Content of a run.json; empty where there is none.

    Raises:
        UserError: a damaged file, or a value of another kind than a run writes.
    """
    record = read_json(path) if path.exists() else {}
    for name, kinds in EXPECTED.items():
        value = record.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not _is_sound(value)):
            raise UserError(f"{path} is damaged ({name} is {value!r:.60}): {REMEDY}")
        if name in MOST and isinstance(value, int) and not 1 <= value <= MOST[name]:
            raise UserError(f"{path} is damaged ({name} is {value!r:.60}): {REMEDY}")
    for text in record.get("overrides") or []:
        if not isinstance(text, str):
            raise UserError(f"{path} is damaged (overrides hold {text!r:.60}): {REMEDY}")
    return record


def read_metrics(path: Path) -> dict[str, float | None]:
    """Content of a metrics.json: numbers by name, None where one is undefined or not finite.

    Raises:
        UserError: it is missing, or holds anything but names with numbers.
    """
    metrics = read_json(path)
    for name, value in metrics.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and _is_sound(value)):
            raise UserError(f"{path} is damaged ({name} is {value!r:.60}, no number): {REMEDY}")
    return {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that a run wrote.

    Raises:
        UserError: it is missing, cannot be read, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {REMEDY}") from error
    except OSError as error:
        raise UserError(f"{path} is damaged, not readable ({error.strerror}): {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, no JSON: {REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged, no JSON object: {REMEDY}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinities become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=2, allow_nan=False))


def _is_sound(value: Any) -> bool:
    """Whether it can be computed with: JSON knows integers that no float can hold."""
    return not isinstance(value, int) or abs(value) < 2**63


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
