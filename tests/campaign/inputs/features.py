"""Odd feature files for `predict` and `export`.

Unless said otherwise a file holds 20 instances of 8 features, on a grid of 512 level-0 pixels, five in a row.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.campaign.cases import Case, Check
from tests.campaign.checks import listed, predicted

BATCH = "features"
COUNT, WIDTH, STEP = 20, 8, 512
FEATURES = np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)
COORDS = np.stack([np.arange(COUNT) % 5, np.arange(COUNT) // 5], 1).astype(np.int64) * STEP
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": STEP,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 6000,
    "level0_height": 5000,
    "name": "s",
    "savetodir": "/x",
}
CLAM = {
    "patch_size": 256,
    "patch_level": 1,
    "downsample": np.array([2.0, 2.0]),
    "downsampled_level_dim": np.array([3000, 2500]),
    "level_dim": np.array([6000, 5000]),
    "name": "s",
    "save_path": "/x",
}


def feature_file(name: str, kind: str, file: str, write: Callable[[Path], Any], check: Check | None = None) -> Case:
    """One row of the list of features."""

    def put(folder: Path) -> dict[str, Any]:
        write(folder / file)
        return {"slide_id": name, "feature_path": file}

    return Case(name, kind, put, check or predicted(name, COUNT), BATCH)


def bad(name: str, kind: str, file: str, write: Callable[[Path], Any], *words: str) -> Case:
    """One that cannot be used; the line names the file."""
    return feature_file(name, kind, file, write, listed(name, re.escape(file), *words))


def hdf5(
    features: Any = FEATURES,
    coords: Any = COORDS,
    attributes: dict[str, Any] | None = None,
    key: str = "features",
    **more: Any,
) -> Callable[[Path], None]:
    """A writer of features, coordinates (with attributes) and further arrays; `_name` are attributes of the file."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            if features is not None:
                file[key] = features
            if coords is not None:
                file["coords"] = coords
                file["coords"].attrs.update(attributes or {})
            for name, value in more.items():
                if name.startswith("_"):
                    file.attrs[name[1:]] = value
                else:
                    file[name] = value

    return write
