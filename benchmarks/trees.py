"""The package as it was at an earlier commit, out of the history of this checkout, and processes that run it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kd_mil", "conf", "hydra_plugins")


def earlier(folder: Path, commit: str) -> dict[str, Path]:
    """`before`: what a commit holds, put into a folder; empty where this is no clone that has it."""
    words = ["git", "-C", str(ROOT), "archive", commit, *PARTS]
    archive = subprocess.run(words, capture_output=True, check=False)
    if archive.returncode:
        return {}
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return {"before": folder}


def copied(folder: Path) -> Path:
    """The present code in a folder without a history, where code counts as unchanged whatever is committed."""
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def environment(tree: Path) -> dict[str, str]:
    """Of a Python process in which `kd_mil` is that of a tree, and all else of this checkout."""
    return os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"}


def process(tree: Path, *words: str, code: int = 0) -> str:
    """Run Python on some words, and return what it prints.

    Raises:
        RuntimeError: another exit code.
    """
    command = [sys.executable, *words]
    found = subprocess.run(command, env=environment(tree), capture_output=True, text=True, check=False)
    if found.returncode != code:
        raise RuntimeError(f"{' '.join(words)} in {tree} left with {found.returncode}: {found.stderr}")
    return found.stdout
