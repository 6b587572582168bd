"""What there is to choose from: `kd-mil list aggregators`, one line each, out of the first comment of each file."""

import re
from pathlib import Path

from kd_mil.cli.experiments import named_by_rule
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

PLURALS = {"experiments": "experiment", "methods": "method", "aggregators": "aggregator", "encoders": "encoder"}
LOOKED_FOR = ("root", "manifest", "slides", "pairs")
"""Settings of data that a user has to have: what has none of them is embedded, or made when it is first used."""


def catalogue(folder: Path, kind: str) -> list[tuple[str, str]]:
    """(name, what it is) of every choice of a kind.

    Args:
        folder: of the configuration files.
        kind: a group of them, `experiments` or `experiment`, `data`, `tissue`, ...

    Raises:
        UserError: no such group, naming the closest.
    """
    group = PLURALS.get(kind, kind)
    files = sorted((folder / group).glob("*.yaml")) if re.fullmatch(r"\w+", group) else []
    if not files:
        groups = sorted({*PLURALS, *(path.name for path in folder.iterdir() if any(path.glob("*.yaml")))})
        guess = "".join(f"; did you mean {near}?" for near in closest(kind, groups))
        raise UserError(f"list {kind}: no such kind{guess}; there are {', '.join(groups)}")
    rows = {path.stem: told(path, group) for path in files}
    if group == "experiment":
        rows |= {name: f"experiment={of} aggregator={by}" for name, of, by in named_by_rule(folder)}
    return sorted(rows.items())


def told(path: Path, group: str) -> str:
    """What the first comment of a configuration file says, and of data, where it comes from."""
    text = path.read_text(encoding="utf-8")
    if group != "data":
        return first_sentence(text)
    needed = any(re.search(rf"^{name}:", text, re.MULTILINE) for name in LOOKED_FOR)
    return f"[{'yours' if needed else 'embedded'}] {first_sentence(text)}"


def first_sentence(text: str) -> str:
    """The first comment at the top of a file as far as a full stop or colon outside brackets; empty without one."""
    above = re.match(r"(?:#.*\n)*", text)
    lines = [line[1:].strip() for line in (above[0] if above else "").splitlines() if "@package" not in line]
    comment = " ".join(lines)
    for end in re.finditer(r"[.:;](?= |$)", comment):
        before = comment[: end.start()]
        if before.count("(") == before.count(")"):
            return before
    return comment
