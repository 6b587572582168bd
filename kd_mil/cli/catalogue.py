"""What there is to choose from: `kd-mil list aggregators`, one line each, out of the first comment of each file."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from kd_mil.cli.experiments import named_by_rule
from kd_mil.core.errors import UserError
from kd_mil.core.suggestions import closest

PLURALS = {"experiments": "experiment", "methods": "method", "aggregators": "aggregator", "encoders": "encoder"}
LOOKED_FOR = ("root", "manifest", "slides", "pairs")
"""Settings of data that a user has to have: what has none of them is embedded, or made when it is first used."""
DATA = "digits_mil"
"""Of a run that says nothing else."""
SIGNS = {"weights": "huggingface.co/", "extra": "pip install", "yours": "A class of your own"}
"""What an encoder or a segmenter needs, by what its comments name."""
QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Written in C where PyYAML has it."""


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
    rows = {path.stem: f"{tag(folder, group, path.stem)}{first_sentence(path.read_text('utf-8'))}" for path in files}
    if group == "experiment":
        for name, of, by in named_by_rule(folder):
            rows[name] = f"{tag(folder, group, of)}experiment={of} aggregator={by}"
    return sorted(rows.items())


def tag(folder: Path, group: str, name: str) -> str:
    """Whether a choice works as it is (`embedded`), or needs data (`yours`), a download of weights, an extra."""
    if group == "experiment":
        needed = needs(folder, "data", chosen(folder, name, "data") or DATA)
        network = chosen(folder, name, "segmenter")
        if needed == "embedded" and network:
            needed = needs(folder, "segmenter", network)
        return f"[{needed}] "
    return f"[{needs(folder, group, name)}] " if group in ("data", "encoder", "segmenter") else ""


def needs(folder: Path, group: str, name: str) -> str:
    """What data, an encoder or a segmenter needs, in one word; `embedded` where it needs nothing."""
    text = (folder / group / f"{name}.yaml").read_text(encoding="utf-8")
    if group == "data":
        return "yours" if any(re.search(f"^{key}:", text, re.MULTILINE) for key in LOOKED_FOR) else "embedded"
    return next((word for word, sign in SIGNS.items() if sign in text), "embedded")


def chosen(folder: Path, experiment: str, group: str) -> str | None:
    """What an experiment, or one that it starts from, chooses of a group; None where it takes that of every run."""
    text = (folder / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    own = re.search(rf"override /{group}: (\w+)", text)
    found = (chosen(folder, base, group) for base in reversed(bases_of(text.splitlines())))
    return own[1] if own else next(filter(None, found), None)


def bases_of(lines: Sequence[str]) -> list[str]:
    """Names in the defaults of a configuration file: other files of its group."""
    if not any(line.startswith("defaults:") for line in lines):
        return []
    entries = yaml.load("\n".join(lines), Loader=QUICK)["defaults"]
    return [entry for entry in entries if isinstance(entry, str) and entry != "_self_"]


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
