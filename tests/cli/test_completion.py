"""What the tab key offers behind `kd-mil`, asked as bash asks."""

import shlex
import shutil
import subprocess
import sys

import pytest

import kd_mil.__main__ as front
from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.cli.completion import BASH, ZSH, candidates


def offered(line):
    return candidates(CONFIG_DIR, (front.COMMANDS | front.MORE).keys(), line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kd-mil pre", ["predict"]),
        ("kd-mil list enc", ["encoders"]),
        ("kd-mil completion ", ["bash", "zsh"]),
        ("kd-mil init weno_ds", ["weno_dsmil", "weno_dsmil_released"]),
        ("kd-mil export fea", ["features="]),
        ("kd-mil run experiment=weno_ds", ["experiment=weno_dsmil", "experiment=weno_dsmil_released"]),
        ("kd-mil run experiment=weno  aggregator=trans", ["aggregator=transmil"]),
        ("kd-mil show hpm=", ["hpm=off", "hpm=threshold", "hpm=top_fraction"]),
        ("kd-mil extract stain=m", ["stain=macenko"]),
        ("kd-mil run seed=", []),
        ("kd-mil nothing x", []),
    ],
)
def test_words_that_may_follow(line, words):
    assert offered(line) == words


def test_an_experiment_of_ones_own_is_offered(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("# @package _global_\nseed: 1\n")
    monkeypatch.chdir(tmp_path)
    assert offered("kd-mil run experiment=min") == ["experiment=mine"]


@pytest.mark.parametrize(
    ("line", "reply"),
    [("kd-mil fron", "frontier"), ("kd-mil export li", "license="), ("kd-mil run hpm=th", "threshold")],
)
def test_bash_completes(line, reply):
    script = f"""
        kd-mil() {{ {shlex.quote(sys.executable)} -m kd_mil "$@"; }}
        {BASH}
        COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; _kd_mil; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [reply], done.stderr


IN_ZSH = """
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "source $PWD/set_up.zsh"
zpty -w -n terminal "$1"$'\\t\\x18'
zpty -r terminal shown '*<<*>>*'
print -r -- $shown
"""
"""Types a line and the tab key, as a user does, then a key that shows what has become of the line."""
SET_UP = """
kd-mil() {{ {python} -m kd_mil "$@"; }}
autoload -U compinit && compinit -u -D
{function}
bindkey '^I' complete-word
show() {{ print -r -- "<<$BUFFER>>" }}
zle -N show
bindkey '^X' show
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("kd-mil fron", "frontier "),
        ("kd-mil export li", "export license="),
        ("kd-mil run seed=1 hpm=th", "hpm=threshold "),
    ],
)
def test_zsh_completes(line, becomes, tmp_path):
    (tmp_path / "set_up.zsh").write_text(SET_UP.format(python=shlex.quote(sys.executable), function=ZSH))
    (tmp_path / "typed.zsh").write_text(IN_ZSH)
    command = ["zsh", "-f", "typed.zsh", line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert f"{becomes}>>" in done.stdout, done.stdout + done.stderr


def test_the_command_prints_what_the_shell_evaluates(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kd-mil", "completion", "bash"])
    front.main()
    assert capsys.readouterr().out.strip() == BASH
    monkeypatch.setattr(sys, "argv", ["kd-mil", "completion", "zsh"])
    front.main()
    assert capsys.readouterr().out.strip() == ZSH
    monkeypatch.setattr(sys, "argv", ["kd-mil", "completion"])
    with pytest.raises(SystemExit):
        front.main()
    assert "completion needs a shell, bash or zsh" in capsys.readouterr().err
