"""Every command a reader can copy from README and docs composes: names, groups and keys exist."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import register_resolvers

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documented_commands():
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, flags=re.DOTALL):
            for line in block.splitlines():
                found = re.search(r"python -m kd_mil\.(\w+)(.*)", line.split("  #")[0])
                if found:
                    yield pytest.param(*found.groups(), id=f"{page.name}:{found[0][10:90]}")


@pytest.mark.parametrize(("command", "arguments"), list(documented_commands()))
def test_documented_command_composes(command, arguments):
    words = [word for word in shlex.split(arguments) if word not in ("-m", "--multirun")]
    spaces = ("interval(", "range(", "choice(")  # searched by a sweeper, no value of a single run
    fixed = [word for word in words if "=" in word and "$" not in word and not any(space in word for space in spaces)]
    overrides = [_first_value(word) for word in fixed]
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        compose(command, overrides=overrides, return_hydra_config=True)


def _first_value(override):
    """Of a sweep `key=a,b,c` the point `key=a`; lists and quoted commas stay."""
    key, _, value = override.partition("=")
    return override if value.startswith(("[", "{", "'")) else f"{key}={value.split(',')[0]}"


def test_files_the_documents_point_to_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
