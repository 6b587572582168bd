"""TensorBoard's HPARAMS page of a sweep: the settings in which points differ, and all metrics of each run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from kd_mil.reporting.runs import Point, Run

LONGEST_NAME = 200
"""Bytes; file systems allow 255."""


def write_hyperparameters(directory: Path, points: Sequence[Point]) -> None:
    """A folder for each run; those that are there already stay as they are."""
    for point in points:
        for run in point.runs:
            folder = directory / folder_name(point, run)
            if folder.exists():
                continue
            seed = {key: run.record[key] for key in ("seed",) if run.record.get(key) is not None}
            settings = {"experiment": point.experiment} | seed | point.settings
            metrics = {f"hp/{key}": value for key, value in run.metrics.items() if value is not None}
            with SummaryWriter(str(folder)) as writer:
                writer.add_hparams(settings, metrics, run_name=".")


def folder_name(point: Point, run: Run) -> str:
    """Point, seed and the first digits of the fingerprint of the data, which differs from fold to fold.

    A name too long for a file system ends in its hash.
    """
    name = f"{point.name} seed={run.record.get('seed')} {str(run.record.get('data_fingerprint'))[:8]}"
    name = name.replace("/", "_").replace("\0", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    kept = name.encode()[: LONGEST_NAME - 17].decode(errors="ignore")
    return f"{kept} {hashlib.sha256(name.encode()).hexdigest()[:16]}"
