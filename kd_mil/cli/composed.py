"""The settings of a run as they are composed, each with the comment of the file that it comes from.

`kd-mil show experiment=weno_dsmil` prints them all, `kd-mil init weno data=feature_bags` an experiment file to edit.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.cli.catalogue import bases_of
from kd_mil.cli.experiments import OWN
from kd_mil.cli.help import settings_of
from kd_mil.core.errors import UserError

COLUMN = 42


def composed(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The configuration of `kd_mil.run` with these overrides, and which file was chosen in each group.

    Raises:
        hydra.errors.HydraException: an override that does not fit.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        config = compose("run", overrides=list(overrides), return_hydra_config=True)
    choices = {group: name for group, name in config.hydra.runtime.choices.items() if isinstance(name, str)}
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    return config, choices


def comments(choices: Mapping[str, str]) -> dict[str, str]:
    """Comment of each setting by its dotted key: of `run.yaml`, the chosen files, and last of the experiment."""
    found = comments_of(CONFIG_DIR / "run.yaml", "", "")
    for choice, name in sorted(choices.items(), key=lambda choice: choice[0] == "experiment"):
        group, _, package = choice.partition("@")
        if file := file_of(group, name):
            found |= comments_of(file, group, package.removeprefix("_global_.") or group.replace("/", "."))
    return found


def file_of(group: str, name: str) -> Path | None:
    """Where a choice is written: among ours, or, of an experiment, in the working directory."""
    folders = [CONFIG_DIR / group, *([Path.cwd()] if group == "experiment" else [])]
    return next((file for folder in folders if (file := folder / f"{name}.yaml").is_file()), None)


def comments_of(file: Path, group: str, package: str) -> dict[str, str]:
    """Comments of the settings of one file, and of those of its group that it starts from, by keys below `package`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    package = "" if lines[:1] == [OWN] else package
    found: dict[str, str] = {}
    for name in bases_of(lines):
        if base := file_of(group, name):
            found |= comments_of(base, group, package)
    prefix = f"{package}." if package else ""
    return found | {f"{prefix}{key.partition('=')[0]}": comment for key, comment in settings_of(lines) if comment}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all settings; interpolations as they are written."""
    if not isinstance(config, dict) or not config:
        yield prefix, config
        return
    for key, value in config.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def commented_yaml(config: Mapping[str, Any], known: Mapping[str, str], prefix: str = "", depth: int = 0) -> str:
    """Nested settings as YAML, each with its comment."""
    lines = []
    for key, value in config.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        comment = f"  # {known[path]}" if path in known else ""
        if isinstance(value, Mapping) and value:
            line, below = f"{'  ' * depth}{key}:", commented_yaml(value, known, path, depth + 1)
        else:
            line, below = f"{'  ' * depth}{key}: {in_one_line(value)}", ""
        lines.append(f"{line:{COLUMN}}{comment}".rstrip() + ("\n" + below if below else ""))
    return "\n".join(lines)


def in_one_line(value: Any) -> str:
    """A value as YAML in one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def shown_settings(overrides: Sequence[str]) -> str:
    """What `kd-mil show` prints."""
    config, choices = composed(overrides)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return commented_yaml(plain, comments(choices))


def experiment_file(arguments: Sequence[str]) -> str:
    """What `kd-mil init EXPERIMENT [GROUP=NAME ...] [KEY=VALUE ...]` prints: an experiment that starts from another.

    Groups become its defaults; the settings of its data, those that a user changes first, and those that were given
    stand below, as they are.

    Raises:
        UserError: no experiment named, or a setting that is taken away, which a file cannot say.
    """
    name, *rest = [text for text in arguments if text] or [""]
    if not name or "=" in name:
        raise UserError("init needs an experiment to start from, kd-mil init weno data=feature_bags > mine.yaml")
    for text in rest:
        if text.startswith("~"):
            raise UserError(f"{text}: an experiment file cannot take a setting away; give null, or another choice")
    config, choices = composed([f"experiment={name}", *rest])
    given = dict(text.lstrip("+").split("=", 1) for text in rest)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    kept: dict[str, Any] = {"seed": plain["seed"], "data": plain["data"], "optimizer": plain["optimizer"]}
    kept["trainer"] = {"max_epochs": plain["trainer"]["max_epochs"]}
    kept = {key: without_targets(value) for key, value in kept.items()}
    for key in given.keys() - choices.keys():
        put(kept, plain, key.split("."))
    head = [
        OWN,
        f"# Saved as mine.yaml: python -m kd_mil.run experiment=mine, in this folder. Starts from {name}.",
        "defaults:",
        f"  - {name}",
        *(f"  - override /{group}: {in_one_line(choices[group])}" for group in given if group in choices),
    ]
    return "\n".join([*head, "", commented_yaml(kept, comments(choices))])


def put(kept: dict[str, Any], plain: Mapping[str, Any], path: Sequence[str]) -> None:
    """Take one setting, by the names on the way to it, from all of them."""
    for name in path[:-1]:
        kept, plain = kept.setdefault(name, {}), plain[name]
    kept[path[-1]] = plain[path[-1]]


def without_targets(value: Any) -> Any:
    """Settings without the class that takes them, and without what follows other settings."""
    if not isinstance(value, dict):
        return value
    own = {key: without_targets(entry) for key, entry in value.items() if key not in ("_target_", "_partial_")}
    return {key: entry for key, entry in own.items() if not (isinstance(entry, str) and entry.startswith("${"))}
