"""Command lines as people type them, in the words of Hydra: paths and names with `=`, commas and spaces take quotes."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import is_remote
from kd_mil.core.suggestions import closest

PACKAGE = Path(__file__).resolve().parents[1]
CONFIG_DIR = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "run.yaml").exists())
ELSEWHERE = ("--config-name", "-cn", "--config-path", "-cp")
"""Options of Hydra that would put another configuration in the place of the command's own."""
SWEEPS = ("hydra/launcher=", "hydra/sweeper=", "hydra.launcher", "hydra.sweeper", "hydra.sweep.", "sweep.")
"""Beginnings of settings that a sweep alone reads."""
EMPTY = ("hydra.run.dir=", "hydra.sweep.dir=")
"""What a shell makes of a variable that is not set."""
CLOSED = ("paths", "sweep")
"""Parts of a configuration that take no further settings: nobody would read them."""


def quoted(text: str) -> str:
    """In quotes, as Hydra reads them (a backslash escapes before a quote alone); unchanged where it is so already."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in ("'", '"'):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def with_quoted_values(arguments: Sequence[str], keys: Collection[str]) -> list[str]:
    """The values of these keys in quotes; `null` and nothing stay what they are."""
    pairs = [(text, *text.partition("=")) for text in arguments]
    return [
        f"{key}={quoted(value)}" if equals and key in keys and value not in ("", "null") else text
        for text, key, equals, value in pairs
    ]


def with_words_as_list(arguments: Sequence[str], command: str, key: str, listed: Collection[str] = ()) -> list[str]:
    """Words that are no setting of the command's own, gathered in its setting `key`, a list.

    Args:
        arguments: the command line.
        command: names its configuration.
        key: the list.
        listed: settings of the command that go there all the same.
    """
    settings = {str(name) for name in OmegaConf.load(CONFIG_DIR / f"{command}.yaml")} - set(listed)
    known = [text for text in arguments if text.startswith("-") or text.split("=")[0].split(".")[0] in settings]
    words = [text for text in arguments if text not in known]
    return [*known, f"{key}=[{','.join(map(quoted, words))}]"] if words else known


def check_options(arguments: Sequence[str]) -> None:
    """Refuse settings written as options, which Hydra takes for abbreviations of its own, and such as nobody reads.

    Raises:
        UserError: with the right spelling; another configuration; or settings of a sweep without `-m`.
    """
    options = get_args_parser()._option_string_actions
    sweeps = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments)
    for text, following in zip(arguments, [*arguments, ""][1:], strict=True):
        name, equals, value = text.partition("=")
        if text in EMPTY:
            raise UserError(f"{text}: is empty, which would mean the working directory: give a folder, or leave it out")
        if name in ELSEWHERE:
            raise UserError(f"{name}: a command has a configuration of its own; --config-dir=FOLDER adds files to it")
        if text.lstrip("+").startswith(SWEEPS) and not sweeps:
            raise UserError(f"{text}: read by sweeps only, which take -m")
        if not text.startswith("-") or name in options:
            continue
        separate = not equals and following and not following.startswith("-") and "=" not in following
        typed = f"{text} {following}" if separate else text
        right = f"{name.lstrip('-').replace('-', '_')}={value or (following if separate else 'VALUE')}"
        raise UserError(f"{typed}: settings are written without dashes, {right}")


def options_first(arguments: Sequence[str]) -> list[str]:
    """A command line with Hydra's options (`-m`, `--cfg job`) before the settings: after them its parser refuses more.

    Args:
        arguments: of which `check_options` approved.
    """
    takes = {name: action.nargs for name, action in get_args_parser()._option_string_actions.items()}
    options: list[str] = []
    settings: list[str] = []
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        takes_value = takes.get(text, 0) is None
        if not text.startswith("-") or (takes_value and not rest):
            settings.append(text)
            continue
        options += [text, rest.pop(0)] if takes_value else [text]
    return options + settings


def without_unset_groups(arguments: Sequence[str], command: str) -> list[str]:
    """A command line without `encoder=null` where nothing is chosen anyhow: Hydra takes a name alone there."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{command}.yaml"))
    groups = [entry for entry in content.get("defaults", []) if isinstance(entry, dict)]
    unset = {f"{group}=null" for entry in groups for group, chosen in entry.items() if chosen is None}
    return [text for text in arguments if text not in unset]


def check_additions(overrides: Sequence[str], command: str) -> None:
    """Refuse what `+` would add to a command's configuration where nobody would read it.

    Raises:
        UserError: naming the key, and the closest that there is.
    """
    content: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{command}.yaml"))  # type: ignore[assignment]
    groups = [group for entry in content.get("defaults", []) if isinstance(entry, dict) for group in entry]
    known = [key for key in content if key not in ("defaults", "hydra")] + groups
    for text in overrides:
        key = text.lstrip("+").partition("=")[0]
        head, *rest = re.split(r"[./@]", key)
        within = settings_within(head, content) if head in CLOSED else {}
        if not text.startswith("+") or (head in known and not (head in CLOSED and rest and rest[0] not in within)):
            continue
        names = [f"{head}.{name}" for name in within] if head in known else known
        guess = "".join(f"; did you mean {near}?" for near in closest(key, names, similarity=0.7))
        raise UserError(f"{text}: kd_mil.{command} has no setting {key}{guess}")


def require(config: Mapping[str, Any], **hints: str) -> None:
    """Refuse a command without these settings; an empty one would mean the working directory.

    Raises:
        UserError: naming the first that is null or empty, and what to give.
    """
    for name, hint in hints.items():
        if config[name] in (None, ""):
            raise UserError(f"{name}= is not set: give {hint}")


def on_a_disk(config: Mapping[str, Any], *names: str) -> None:
    """Refuse URLs where a file or a folder of this machine is meant: they would become folders of that name.

    Raises:
        UserError: naming the first.
    """
    for name in names:
        if is_remote(config[name]):
            raise UserError(f"{name}={config[name]}: give a path on a disk; object stores serve as inputs")


def settings_within(part: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of one part of a command's configuration, written in its own file or in that of a group."""
    path = CONFIG_DIR / part / "default.yaml"
    found: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else content.get(part)
    return found or {}
