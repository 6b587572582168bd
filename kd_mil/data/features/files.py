"""Feature files of CLAM, TRIDENT, STAMP, torchmil and plain arrays, read whole or by position."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.arrays import bytes_held, open_arrays, stored_array
from kd_mil.data.features.positions import Statements, corners_of, level0_pixels, statements

FEATURE_KEYS = ("features", "feats", "X")
COORDS_KEYS = ("coords", "centres")
LABEL_KEYS = ("inst_labels", "patch_labels", "instance_labels", "y_inst")
FRACTION_KEYS = ("tumour_fraction",)
TUMOUR_THRESHOLD = 0.25
"""Tumour area fraction from which an instance is positive."""


class EmptyBagError(UserError):
    """A feature file without a single instance, as of a slide without tissue."""


class FeatureFile:
    """One open file: the features (N, D) of one bag, and what else the file knows about its instances.

    Args:
        path: `.h5`, `.pt`, `.npy` or `.npz`.

    Raises:
        UserError: what `open_arrays` and `stored_array` refuse, no features or two arrays that could be them, a wrong
            shape, numbers that are neither integer nor floating, or no instance.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._arrays = path, open_arrays(path)
        features = self._find(FEATURE_KEYS)
        if features is None:
            raise UserError(f"{path} has no features: expected one of {', '.join(FEATURE_KEYS)}")
        shape = tuple(features.shape or ())
        self._index = (0,) if len(shape) == 3 and shape[0] == 1 else ()
        """Leads past the first axis of (1, N, D)."""
        if len(shape) - len(self._index) != 2:
            raise UserError(f"{path}: features of shape {shape}, expected (N, D) or (1, N, D)")
        self._features, (self.num_instances, self.width) = features, shape[-2:]
        _require_numbers(path, "features", features)
        if self.width == 0:
            raise UserError(f"{path}: features of shape {shape}: their width is 0")
        self.held_bytes = bytes_held(path, features)
        """Memory that the open file takes."""
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

    def coords(self, slide_mpp: float | None = None) -> Tensor | None:
        """(N, 2) int64 (x, y) of top left corners in level-0 pixels; None where the file has none, or has no pixels.

        Args:
            slide_mpp: µm per level-0 pixel of the slide: positions in micrometres (STAMP) are scaled by it.

        Raises:
            UserError: positions that are no numbers, not finite, negative, or beyond the slide.
        """
        if self._stored_coords is None:
            return None
        pixels = level0_pixels(self.path, self._stored_coords, self.stated, slide_mpp)
        return None if pixels is None else torch.from_numpy(pixels)

    @cached_property
    def stated(self) -> Statements:
        """What the file says of size and position of its tiles; UserError as of `statements`."""
        of_file, of_coords = (getattr(held, "attrs", {}) for held in (self._arrays, self._find(COORDS_KEYS)))
        with readable(self.path):
            return statements(self.path, of_file, of_coords, self._stored_coords)

    @cached_property
    def _stored_coords(self) -> np.ndarray | None:
        """(N, 2) float64 in the file's own unit."""
        coords = self._find(COORDS_KEYS)
        if coords is None:
            return None
        values = self._per_instance("coords", coords, (self.num_instances, 2)).numpy()
        return corners_of(values) if "centres" in self._arrays else values

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
        if (values != values.long()).any() or (values < -1).any():
            raise UserError(f"{self.path}: instance labels must be integers from 0 on, -1 = unknown")
        return values.long()

    def _find(self, keys: Sequence[str]) -> Any:
        present = [key for key in keys if key in self._arrays]
        if len(present) > 1:
            raise UserError(f"{self.path} has both {present[0]!r} and {present[1]!r}: keep one of them")
        return stored_array(self.path, self._arrays, present[0]) if present else None

    def _per_instance(self, name: str, array: Any, shape: tuple[int, ...]) -> Tensor:
        found = tuple(array.shape or ())
        if found not in (shape, (1, *shape), (*shape, 1)):
            raise UserError(f"{self.path}: {name} of shape {found} for {self.num_instances} instances")
        _require_numbers(self.path, name, array)
        with readable(self.path):
            return _tensor(array[()]).reshape(shape).double()

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
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))  # files may be big-endian


def _require_numbers(path: Path, name: str, array: Any) -> None:
    """UserError for an array of anything but integers and floating-point numbers; labels may be truth values."""
    if isinstance(array, Tensor):
        is_number = not array.is_complex() and (array.dtype != torch.bool or name == "instance labels")
    else:
        is_number = array.dtype.kind in ("biuf" if name == "instance labels" else "iuf")
    if not is_number:
        raise UserError(f"{path}: {name} are of type {array.dtype}: integers or floating-point numbers are expected")


class FeatureFiles:
    """Lazy instances (N, D) of many bags, each in its own file, end to end.

    Every process opens its own files, when they are asked for, and keeps the last ones, up to `max_open` files and
    `max_bytes` of what such as `.npz` hold in memory.

    Args:
        paths: B files.
        sizes: (B,) int64 instances in each.
        width: D.
        dtype: features are converted to it.
        max_open: files kept open by a process.
        max_bytes: memory that they may take, but for the last of them.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        sizes: Tensor,
        width: int,
        dtype: torch.dtype,
        max_open: int = 128,
        max_bytes: int = 2**30,
    ) -> None:
        self.paths, self.dtype, self.max_open, self.max_bytes = list(paths), dtype, max_open, max_bytes
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
        while len(self._open) > 1 and self._is_crowded():
            self._open.popitem(last=False)
        return self._open[owner]

    def _is_crowded(self) -> bool:
        held = sum(file.held_bytes for file in self._open.values())
        return len(self._open) > self.max_open or held > self.max_bytes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}
