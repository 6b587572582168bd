"""Shell completion of `kd-mil`: what may follow what was typed, and the function that asks a shell for it."""

from collections.abc import Collection, Iterable
from pathlib import Path

from kd_mil.cli.catalogue import PLURALS, catalogue
from kd_mil.cli.experiments import own_experiments
from kd_mil.cli.help import groups_of, settings_of
from kd_mil.core.errors import UserError

COMPOSED = ("show", "init")
"""Commands that take the settings of a run."""
BASH = """\
_kd_mil() {
    local line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }"
    local IFS=$'\\n'
    COMPREPLY=($(kd-mil complete "$line" 2>/dev/null))
    [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _kd_mil kd-mil"""
"""An equals sign ends a word of bash, so what stands before it is not given again."""
ZSH = """\
_kd_mil() {
    local -a found
    found=("${(@f)$(kd-mil complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
}
compdef _kd_mil kd-mil"""
"""Words that end with an equals sign go on; all others are followed by a space."""
SHELLS = {"bash": BASH, "zsh": ZSH}


def candidates(folder: Path, commands: Collection[str], line: str) -> list[str]:
    """Words that may stand where a line ends, such as `kd-mil run exp`.

    Args:
        folder: of the configuration files.
        commands: all there are.
        line: as far as it is typed.
    """
    *before, word = line.split(" ")
    before = [text for text in before if text]
    if len(before) == 1:
        found: Iterable[str] = commands
    elif before[1] == "list":
        found = [*PLURALS, "data"]
    elif before[1] == "completion":
        found = SHELLS
    elif before[1] == "init" and len(before) == 2:
        found = [name for name, _ in catalogue(folder, "experiment")]
    else:
        found = settings(folder, "run" if before[1] in COMPOSED else before[1], word)
    return sorted(text for text in set(found) if text.startswith(word))


def settings(folder: Path, command: str, word: str) -> list[str]:
    """`key=` of every setting and group of a command; behind the equals sign of a group its choices."""
    path = folder / f"{command}.yaml"
    if not path.is_file():
        return []
    groups = [group for group, _ in groups_of(folder, command)] + (["experiment"] if command == "run" else [])
    key, equals, _ = word.partition("=")
    if equals and key in groups:
        return [f"{key}={name}" for name in choices(folder, key)]
    own = [text.partition("=")[0] for text, _ in settings_of(path.read_text(encoding="utf-8").splitlines())]
    return [] if equals else [f"{name}=" for name in [*own, *groups]]


def choices(folder: Path, group: str) -> list[str]:
    """What a group has, experiments of the working directory included."""
    try:
        known = [name for name, _ in catalogue(folder, group)]
    except UserError:  # a group within a group
        known = [path.stem for path in (folder / group).glob("*.yaml")]
    return known + ([path.stem for path in own_experiments(Path.cwd())] if group == "experiment" else [])
