"""`--help`: how a command is called, an example, its settings with the comments of their file, its own groups."""

import re
import textwrap
from pathlib import Path

from omegaconf import OmegaConf

HIDDEN = ("hydra", "defaults")
"""Parts of a configuration file that are not for users."""
WIRING = ("_target_", "_partial_")
"""How a part is built; nor is what only passes a part on, `encoder: ${encoder}`."""
WIDTH, COLUMN = 118, 34


def help_text(folder: Path, name: str) -> str:
    """What `python -m kd_mil.NAME --help` prints.

    Args:
        folder: of the configuration files.
        name: of the command and its file, whose first comments say how it is called and give examples.
    """
    lines = (folder / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    called = [line[2:] for line in _first_comments(lines)]
    settings = [_row(key, comment) for key, comment in settings_of(lines)]
    groups = [
        _row(f"{group}={chosen}", ", ".join(_choices(folder, group))) for group, chosen in groups_of(folder, name)
    ]
    parts = [("", called), ("Settings", settings), ("Groups of settings, and what may be chosen", groups)]
    texts = ["\n".join([f"{title}:" if title else "", *rows]).strip() for title, rows in parts if rows]
    more = "All that a command would use: --cfg job. A setting of a chosen part: part.setting=value."
    return "\n\n".join([*texts, more])


def settings_of(lines: list[str]) -> list[tuple[str, str]]:
    """`key=default` and comment of every setting of a configuration file, those below others with dotted keys."""
    path: list[tuple[int, str]] = []
    rows: list[tuple[str, str]] = []
    for line in lines:
        found = re.match(r"(?P<space> *)(?:(?P<key>\w+):(?: +(?P<value>.*?))?)?(?: *# *(?P<comment>.*))?$", line)
        if found is None or (found["key"] is None and not (found["comment"] and found["space"])):
            continue
        indent, key, comment = len(found["space"]), found["key"], found["comment"] or ""
        if key is None:  # a comment continued from the line above
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {comment}")
            continue
        path = [(above, name) for above, name in path if above < indent] + [(indent, key)]
        wired = key in WIRING or (not comment and found["value"] in (None, f"${{{key}}}"))
        if path[0][1] in HIDDEN or wired:
            continue
        value = "" if found["value"] is None else f"={found['value']}"
        rows.append((".".join(name for _, name in path) + value, comment))
    return rows


def groups_of(folder: Path, name: str) -> list[tuple[str, str]]:
    """Groups that a command's configuration is made of, and what is chosen where nothing is said."""
    defaults = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")).get("defaults", [])  # type: ignore[union-attr]
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    return [(group, shown(chosen)) for group, chosen in pairs if " " not in group]


def shown(chosen: str | None) -> str:
    """A choice as the command line spells it."""
    return "null" if chosen is None else chosen


def _choices(folder: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def _first_comments(lines: list[str]) -> list[str]:
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return lines[:end]


def _row(left: str, right: str) -> str:
    """Two columns; what is too long for the first has a line of its own."""
    indent = " " * (COLUMN + 2)
    wrapped = textwrap.fill(right, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(left) <= COLUMN - 2:
        return f"  {left:{COLUMN}}{wrapped[len(indent) :]}".rstrip()
    return f"  {left}\n{wrapped}".rstrip()
