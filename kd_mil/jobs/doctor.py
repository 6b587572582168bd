"""The checks of the doctor, in order, and their table."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.core.machine.environment import environment
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.listing import list_features
from kd_mil.data.features.manifest import read_manifest
from kd_mil.data.features.remote import RemoteFiles
from kd_mil.diagnosis.data import feature_findings, folder_of, split_findings
from kd_mil.diagnosis.environment import environment_findings
from kd_mil.diagnosis.finding import Finding, as_finding

COLOURS = {"ok": "green", "note": "blue", "warning": "yellow", "error": "red"}


def main(config: DictConfig) -> None:
    """Make all checks, print what they found, and exit with 1 where something is wrong."""
    found = environment_findings(Path(config.paths.run_root))
    settings = list(config.run)
    if config.data_sets:
        found += data_set_findings([text for text in settings if text.startswith("paths.")])
    if any(text.startswith("data=") for text in settings):
        found += chosen_data_findings(settings)
    if config.features is not None:
        with as_finding(found, "features"):
            cache_dir = Path(compose("run", overrides=settings).paths.cache_dir)
            entries, folder = list_features(config.features, RemoteFiles(cache_dir / "remote"))
            found += [Finding("error", "features", entry.fault) for entry in entries if entry.fault]
            files = [entry.path for entry in entries if not entry.fault]
            found += feature_findings(files, FeatureIndex(folder, cache_dir))
    if config.smoke:
        found.append(two_processes(config.smoke_seconds))
    show(found)
    if any(finding.level == "error" for finding in found):
        sys.exit(1)


def data_set_findings(settings: list[str]) -> list[Finding]:
    """Which of the named data sets are where they are looked for."""
    folders: dict[str, Path | None] = {}
    for path in sorted((CONFIG_DIR / "data").glob("*.yaml")):
        if "data_dir" not in path.read_text():
            continue
        config = compose("run", overrides=[f"data={path.stem}", *settings]).data
        if "data_dir" in config and config.get("root") is None:
            folders[path.stem] = folder_of(data_module(config).setup)
    found = [folder_finding(name, folder) for name, folder in folders.items() if folder is not None]
    missing = [name for name, folder in folders.items() if folder is None]
    return found + ([Finding("note", "data sets", f"not here: {', '.join(missing)}")] if missing else [])


def folder_finding(name: str, folder: Path) -> Finding:
    """What stands where a data set should be: its folder is looked for, its files are not read."""
    if not any(folder.iterdir()):
        return Finding("warning", "data set", f"{name}: {folder} is empty")
    return Finding("ok", "data set", f"{name}: {folder} is there (data={name} reads it)")


def chosen_data_findings(settings: list[str]) -> list[Finding]:
    """Leakage and duplicates of the data set that the settings choose, and where its features come from."""
    found: list[Finding] = []
    with as_finding(found, "data"):
        data = data_module(compose("run", overrides=settings).data)
        if isinstance(data, FeatureBags) and data.manifest is not None:
            manifest = read_manifest(data.manifest, data.classes, data.root, data.labels, data.columns, data.cache_dir)
            found += feature_findings(manifest.feature_paths, FeatureIndex(manifest.folder, data.cache_dir))
        data.check = False
        data.setup()
        if hasattr(data, "splits"):
            found += split_findings(data.splits)
        else:
            found.append(Finding("ok", "data", ", ".join(f"{count} {part}" for part, count in data.counts().items())))
    return found


def data_module(config: DictConfig) -> Any:
    """The data module of a composed configuration."""
    return instantiate(OmegaConf.to_container(config, resolve=True), _convert_="all")


def two_processes(seconds: float) -> Finding:
    """A moment of training on two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["experiment=mil_max", "data=digits_mil", "trainer=ddp_cpu", "debug=one_batch"]
        line = [sys.executable, "-m", "kd_mil.run", *settings, "hydra.run.dir=smoke"]
        try:
            result = subprocess.run(
                line, cwd=folder, env=environment({}), capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return Finding("error", "two processes", f"no end after {seconds:g} s")
        if result.returncode == 0 and (Path(folder) / "smoke" / "metrics.json").is_file():
            return Finding("ok", "two processes", "trained and tested")
        last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        return Finding("error", "two processes", last)


def show(found: Sequence[Finding]) -> None:
    """The table of all findings."""
    table = Table("", "check", "finding")
    for finding in found:
        table.add_row(f"[{COLOURS[finding.level]}]{finding.level}[/]", finding.topic, escape(finding.text))
    Console(width=max(Console().width, 100)).print(table)
