"""`--help` says what there is, with an example that works."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kd_mil.cli.arguments import CONFIG_DIR, with_quoted_values, with_words_as_list
from kd_mil.cli.help import groups_of, help_text, settings_of

COMMANDS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))


def leaves(content, path=""):
    for key, value in content.items():
        place = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from leaves(value, place)
        elif key != "_target_":
            yield place


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_is_listed_with_its_comment(command):
    content = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{command}.yaml"))
    expected = set(leaves({key: value for key, value in content.items() if key not in ("defaults", "hydra")}))
    rows = settings_of((CONFIG_DIR / f"{command}.yaml").read_text().splitlines())
    comments = {row.partition("=")[0]: comment for row, comment in rows}
    assert set(comments) == expected
    text = " ".join(help_text(CONFIG_DIR, command).split())
    for comment in comments.values():
        assert " ".join(comment.split()) in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_groups_are_those_of_the_command(command):
    found = groups_of(CONFIG_DIR, command)
    assert all((CONFIG_DIR / group).is_dir() for group, _ in found)
    text = help_text(CONFIG_DIR, command)
    assert ("aggregator=gated_abmil" in text) == (command == "run")
    assert ("tissue=he" in text) == (command in ("run", "extract", "segment"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_commands_that_compose(command):
    lines = re.findall(r"^Example: (.*)$", help_text(CONFIG_DIR, command), re.MULTILINE)
    assert lines
    for line in lines:
        python, option, module, *arguments = shlex.split(line)
        assert (python, option, module) == ("python", "-m", f"kd_mil.{command}")
        words = {"report": "directories", "doctor": "run"}
        if command in words:
            arguments = with_words_as_list(arguments, command, words[command])
        arguments = with_quoted_values(arguments, ("ckpt", "slides", "out"))
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            assert compose(command, overrides=arguments)


def test_comments_over_two_lines_and_nested_settings_are_read():
    lines = ["a: 1  # one,", "         # two", "b:", "  _target_: x", "  c: [1, 2]  # list", "hydra:", "  d: 3  # no"]
    assert settings_of(lines) == [("a=1", "one, two"), ("b.c=[1, 2]", "list")]
