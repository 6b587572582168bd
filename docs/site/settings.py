"""The reference of all settings, from the comments of the configuration files."""

from pathlib import Path

from kd_mil.cli.catalogue import first_sentence
from kd_mil.cli.help import settings_of

INTRODUCTION = """# Settings

Every setting of every command, as the files under `conf/` have it: the value is the default, the comment its meaning.
`python -m kd_mil.COMMAND --help` prints those of a command, `kd-mil show experiment=weno_dsmil` those of a run.
"""
NOT_SHOWN = ("hydra", "local", "sweep")


def settings_page(conf: Path) -> str:
    """Markdown: commands first, then each group with its choices."""
    parts = [INTRODUCTION, "## Commands"]
    parts += [section(path, path.stem) for path in sorted(conf.glob("*.yaml"))]
    folders = sorted(path for path in conf.iterdir() if path.is_dir() and path.name not in NOT_SHOWN)
    for folder in folders:
        files = sorted(folder.rglob("*.yaml"))
        parts.append(f"## `{folder.name}=`")
        parts += [section(path, f"{folder.name}={path.relative_to(folder).with_suffix('')}") for path in files]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(path: Path, title: str) -> str:
    """One file: its first comment and its settings."""
    text = path.read_text(encoding="utf-8")
    rows = [
        f"| <code>{cell(setting)}</code> | {cell(comment)} |" for setting, comment in settings_of(text.splitlines())
    ]
    table = "\n".join(["| setting | |", "|---|---|", *rows]) if rows else ""
    return "\n\n".join(part for part in (f"### `{title}`", escaped(first_sentence(text)), table) if part)


def cell(text: str) -> str:
    """Text that fits a cell of a table."""
    return escaped(text).replace("|", "&#124;").replace("`", "'")


def escaped(text: str) -> str:
    """Text that Markdown takes for no tag and no link."""
    return text.replace("<", "&lt;").replace("[", "&#91;")
