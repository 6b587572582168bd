"""Feature files of CLAM, TRIDENT, STAMP, torchmil and plain arrays, read whole or by position."""

import os
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable

FEATURE_KEYS = ("features", "feats", "X")
COORDS_KEYS = ("coords",)
LABEL_KEYS = ("inst_labels", "patch_labels", "instance_labels", "y_inst")
FRACTION_KEYS = ("tumour_fraction",)
TUMOUR_THRESHOLD = 0.25
"""Tumour area fraction from which an instance is positive."""
SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz")


class EmptyBagError(UserError):
    """A feature file without a single instance, as of a slide without tissue."""


def open_arrays(path: Path) -> Mapping[str, Any]:
    """The named arrays of a file, left on disk where the format allows it; a bare array is called `features`.

    Nothing in the file is executed: no pickled objects are accepted.

    Raises:
        UserError: a missing or unreadable file, or an unknown suffix.
    """
    if path.suffix not in (*SUFFIXES, ".csv"):
        raise UserError(f"{path}: unknown kind of feature file; known: {', '.join(SUFFIXES)}, .csv")
    if not path.is_file():
        raise UserError(f"{path}: no such feature file")
    with readable(path):
        if path.suffix in (".h5", ".hdf5"):
            return h5py.File(path, "r")
        if path.suffix == ".csv":  # DSMIL: a header 0,1,2,..., then one line for each instance
            return {"features": pd.read_csv(path, dtype=np.float32).to_numpy()}
        if path.suffix in (".pt", ".pth"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            return content if isinstance(content, dict) else {"features": content}
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return {"features": array} | _beside(path) if path.suffix == ".npy" else array


def _beside(path: Path) -> dict[str, np.ndarray]:
    """What torchmil keeps of a `.npy` file in `features/` in the folders `coords/` and `patch_labels/` beside it."""
    inside = next((above for above in path.parents[:2] if above.name == "features"), None)
    if inside is None:
        return {}
    files = {kind: inside.parent / kind / path.name for kind in ("coords", "patch_labels")}
    return {kind: np.load(file, allow_pickle=False) for kind, file in files.items() if file.is_file()}


class FeatureFile:
    """One open file: the features (N, D) of one bag, and what else the file knows about its instances.

    Args:
        path: `.h5`, `.pt`, `.npy` or `.npz`.

    Raises:
        UserError: an unreadable file, no features or two arrays that could be them, a wrong shape, or no instance.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._arrays = path, open_arrays(path)
        features = self._find(FEATURE_KEYS)
        if features is None:
            raise UserError(f"{path} has no features: expected one of {', '.join(FEATURE_KEYS)}")
        shape = tuple(getattr(features, "shape", ()))
        self._index = (0,) if len(shape) == 3 and shape[0] == 1 else ()
        """Leads past the first axis of (1, N, D)."""
        if len(shape) - len(self._index) != 2:
            raise UserError(f"{path}: features of shape {shape}, expected (N, D) or (1, N, D)")
        self._features, (self.num_instances, self.width) = features, shape[-2:]
        if self.num_instances == 0:
            raise EmptyBagError(f"{path} is an empty bag: remove its row or extract its features again")

    def read(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Features (M, D) at `positions` (M,) int64, in that order.

        Raises:
            UserError: NaN or infinite features, or values beyond the range of `dtype`.
        """
        distinct, inverse = positions.unique(return_inverse=True)
        first, last = int(distinct[0]), int(distinct[-1])
        whole = last - first + 1 == len(distinct)
        index = (*self._index, slice(first, last + 1) if whole else distinct.numpy())
        with readable(self.path):
            values = _tensor(self._features[index])
        converted = values.to(dtype)
        if not converted.isfinite().all():
            self._refuse(values, distinct, dtype)
        return converted[inverse]

    def coords(self) -> Tensor | None:
        """(N, 2) int64 (x, y) in level-0 pixels; None where the file has none, or has them in micrometres (STAMP)."""
        coords = self._find(COORDS_KEYS)
        if coords is None:
            return None
        if getattr(self._arrays, "attrs", {}).get("unit") == "um":
            warnings.warn(
                "feature files with coordinates in micrometres: left out, there are no overlays", stacklevel=2
            )
            return None
        return self._per_instance("coords", coords, (self.num_instances, 2)).round().long()

    def tumour_fraction(self) -> Tensor | None:
        """(N,) float32 in [0, 1], tumour area of each instance; None where the file has none, or has labels."""
        fractions = None if self._find(LABEL_KEYS) is not None else self._find(FRACTION_KEYS)
        if fractions is None:
            return None
        values = self._per_instance("tumour_fraction", fractions, (self.num_instances,)).float()
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"{self.path}: tumour_fraction must lie in [0, 1]")
        return values

    def instance_labels(self, tumour_threshold: float = TUMOUR_THRESHOLD) -> Tensor:
        """(N,) int64, -1 = unknown, as everywhere where the file has neither labels nor tumour fractions."""
        labels, fractions = self._find(LABEL_KEYS), self.tumour_fraction()
        if fractions is not None:
            return (fractions >= tumour_threshold).long()
        if labels is None:
            return torch.full((self.num_instances,), -1)
        values = self._per_instance("instance labels", labels, (self.num_instances,))
        if (values != values.long()).any():
            raise UserError(f"{self.path}: instance labels must be integers, -1 = unknown")
        return values.long()

    def _find(self, keys: Sequence[str]) -> Any:
        present = [key for key in keys if key in self._arrays]
        if len(present) > 1:
            raise UserError(f"{self.path} has both {present[0]!r} and {present[1]!r}: keep one of them")
        with readable(self.path):
            return self._arrays[present[0]] if present else None

    def _per_instance(self, name: str, array: Any, shape: tuple[int, ...]) -> Tensor:
        with readable(self.path):
            values = _tensor(array[()])
        if values.shape not in (shape, (1, *shape), (*shape, 1)):
            raise UserError(f"{self.path}: {name} of shape {tuple(values.shape)} for {self.num_instances} instances")
        return values.reshape(shape).double()

    def _refuse(self, values: Tensor, positions: Tensor, dtype: torch.dtype) -> None:
        finite = values.isfinite()
        if finite.all():
            largest = float(values.abs().max())
            raise UserError(
                f"{self.path}: features up to {largest:g} are too large for half precision: set data.dtype=float32"
            )
        row = int(positions[~finite.all(dim=1)][0])
        raise UserError(f"{self.path}: NaN or infinite features in instance {row} (counted from 0)")


def _tensor(array: Tensor | np.ndarray) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))


class FeatureFiles:
    """Lazy instances (N, D) of many bags, each in its own file, end to end.

    Every process opens its own files, when they are asked for, and keeps the last `max_open` of them.

    Args:
        paths: B files.
        sizes: (B,) int64 instances in each.
        width: D.
        dtype: features are converted to it.
        max_open: files kept open by a process.
    """

    def __init__(
        self, paths: Sequence[Path], sizes: Tensor, width: int, dtype: torch.dtype, max_open: int = 128
    ) -> None:
        self.paths, self.dtype, self.max_open = list(paths), dtype, max_open
        self.ends = sizes.cumsum(0)
        self.shape: tuple[int, ...] = (int(sizes.sum()), width)
        self._open: OrderedDict[int, FeatureFile] = OrderedDict()
        self._process = os.getpid()

    @property
    def nbytes(self) -> int:
        """Bytes of all features in `dtype`."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Features (M, D) at `positions` (M,) int64, in that order; errors as in `FeatureFile.read`."""
        instances = torch.empty(len(positions), self.shape[1], dtype=self.dtype)
        owners = torch.searchsorted(self.ends, positions, right=True)
        for owner in owners.unique().tolist():
            is_in_file = owners == owner
            start = int(self.ends[owner - 1]) if owner else 0
            instances[is_in_file] = self._file(owner).read(positions[is_in_file] - start, self.dtype)
        return instances

    def read(self) -> Tensor:
        """All features (N, D) in memory."""
        instances = torch.empty(self.shape, dtype=self.dtype)
        start = 0
        for path, end in zip(
            tqdm(self.paths, desc="features", unit="bag", disable=None, leave=False), self.ends.tolist(), strict=True
        ):
            instances[start:end] = FeatureFile(path).read(torch.arange(end - start), self.dtype)
            start = end
        return instances

    def _file(self, owner: int) -> FeatureFile:
        if self._process != os.getpid():  # a forked worker must not read through its parent's file handles
            self._open, self._process = OrderedDict(), os.getpid()
        if owner not in self._open:
            self._open[owner] = FeatureFile(self.paths[owner])
        self._open.move_to_end(owner)
        if len(self._open) > self.max_open:
            self._open.popitem(last=False)
        return self._open[owner]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}
