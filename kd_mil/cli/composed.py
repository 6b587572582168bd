"""The settings of a run as they are composed, each with the comment of the file that it comes from.

`kd-mil show experiment=weno_dsmil` prints them all, `kd-mil init weno data=feature_bags` an experiment file to edit.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.arguments import CONFIG_DIR
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
    """Comment of each setting by its dotted key: of the chosen files, and of `run.yaml`."""
    found = comments_of(CONFIG_DIR / "run.yaml", "")
    for group, name in choices.items():
        path, _, package = group.partition("@")
        file = CONFIG_DIR / path / f"{name}.yaml"
        if file.is_file():
            found |= comments_of(file, package.removeprefix("_global_.") or path.replace("/", "."))
    return found


def comments_of(file: Path, package: str) -> dict[str, str]:
    """Comments of one file's settings, by their keys below `package`."""
    rows = settings_of(file.read_text(encoding="utf-8").splitlines())
    prefix = f"{package}." if package else ""
    return {f"{prefix}{key.partition('=')[0]}": comment for key, comment in rows if comment}


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
    """What `kd-mil init EXPERIMENT [GROUP=NAME ...]` prints: an experiment that starts from another one.

    Groups become its defaults; the settings of its data and those that a user changes first stand below, as they are.

    Raises:
        UserError: no experiment named.
    """
    name, *rest = [text for text in arguments if text] or [""]
    if not name or "=" in name:
        raise UserError("init needs an experiment to start from, kd-mil init weno data=feature_bags > mine.yaml")
    config, choices = composed([f"experiment={name}", *rest])
    groups = [text.split("=", 1) for text in rest if text.split("=", 1)[0] in choices]
    values = [text.split("=", 1) for text in rest if text.split("=", 1)[0] not in choices]
    plain: Any = OmegaConf.to_container(config, resolve=False)
    kept: dict[str, Any] = {"seed": plain["seed"], "data": plain["data"], "optimizer": plain["optimizer"]}
    kept["trainer"] = {"max_epochs": plain["trainer"]["max_epochs"]}
    kept = {key: without_targets(value) for key, value in kept.items()}
    head = [
        "# @package _global_",
        f"# Saved as mine.yaml: python -m kd_mil.run experiment=mine, in this folder. Starts from {name}",
        *(f"# with {key}={value}" for key, value in values),
        "defaults:",
        f"  - {name}",
        *(f"  - override /{group}: {in_one_line(choice)}" for group, choice in groups),
    ]
    return "\n".join([*head, "", commented_yaml(kept, comments(choices))])


def without_targets(value: Any) -> Any:
    """Settings without the class that takes them, and without what follows other settings."""
    if not isinstance(value, dict):
        return value
    own = {key: without_targets(entry) for key, entry in value.items() if key not in ("_target_", "_partial_")}
    return {key: entry for key, entry in own.items() if not (isinstance(entry, str) and entry.startswith("${"))}
