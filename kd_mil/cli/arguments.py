"""Command lines as people type them, in the words of Hydra: paths and names with `=`, commas and spaces take quotes."""

import re
from collections.abc import Collection, Sequence

from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR


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
