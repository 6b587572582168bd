"""Feature files of CLAM, TRIDENT, STAMP, torchmil and plain arrays, read whole or by position."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.files.arrays import bytes_held, is_hdf5, open_arrays, stored_array
from kd_mil.data.features.files.attributes import plain_attributes
from kd_mil.data.features.files.positions import Statements, corners_of, level0_pixels, statements
from kd_mil.data.features.files.sidecars import read_record

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

    is_checked = False
    """All features are known to be finite and within the range of their type: it was read through before."""

    def __init__(self, path: Path) -> None:
        self.path, self.arrays = path, open_arrays(path)
        features = self._find(FEATURE_KEYS)
        if features is None:
            raise UserError(f"{path} has no features: expected one of {', '.join(FEATURE_KEYS)}")
        shape = tuple(features.shape or ())
        self._index = (0,) if len(shape) == 3 and shape[0] == 1 else ()
        """Leads past the first axis of (1, N, D)."""
        if len(shape) - len(self._index) != 2:
            raise UserError(f"{path}: features of shape {shape}, expected (N, D) or (1, N, D)")
        self.features, (self.num_instances, self.width) = features, shape[-2:]
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
        index = slice(first, last + 1) if whole else distinct.numpy()
        return converted(self.path, self.stored(index), distinct, dtype)[inverse]

    def read_into(self, rows: np.ndarray, first: int) -> None:
        """Fill rows (M, D) of a float type with the features of instances `first` to `first + M`; errors as of `read`.

        They are looked at unless the file `is_checked`.
        """
        values, target = self.stored(slice(first, first + len(rows))), torch.from_numpy(rows)
        if not self.is_checked:
            values = converted(self.path, values, torch.arange(first, first + len(rows)), target.dtype)
        target.copy_(values)

    def read_all(self, dtype: torch.dtype) -> Tensor:
        """All features (N, D) in order; errors as of `read`."""
        return converted(self.path, self.stored(slice(0, self.num_instances)), None, dtype)

    def stored(self, rows: slice | np.ndarray) -> Tensor:
        """Features (M, D) of some rows as they are stored, in the byte order of the machine."""
        index = (*self._index, rows)
        with readable(self.path):
            return _tensor(self.features[index])

    def coords(self, slide_mpp: float | None = None) -> Tensor | None:
        """(N, 2) int64 (x, y) of top left corners in level-0 pixels; None where the file has none, or has no pixels.

        Args:
            slide_mpp: µm per level-0 pixel of the slide: positions in micrometres (STAMP) are scaled by it.

        Raises:
            UserError: positions that are no numbers, not finite, negative, or beyond the slide.
        """
        if self.stored_coords is None:
            return None
        pixels = level0_pixels(self.path, self.stored_coords, self.stated, slide_mpp)
        return None if pixels is None else torch.from_numpy(pixels)

    @cached_property
    def stated(self) -> Statements:
        """What the file says of size and position of its tiles; UserError as of `statements`."""
        of_file, _, of_coords = self.attributes
        return statements(self.path, of_file, of_coords, self.stored_coords)

    @cached_property
    def attributes(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Of the file, its features and its positions, as plain values; empty where the format has none.

        Those of a file of slide2vec are its record.
        """
        with readable(self.path):
            of_file = plain_attributes(self.arrays) if is_hdf5(self.path) else read_record(self.path)
            return of_file, plain_attributes(self.features), plain_attributes(self.coords_array)

    @property
    def coords_array(self) -> Any:
        """The positions as the file holds them, unread; None where it has none."""
        return self._find(COORDS_KEYS)

    @cached_property
    def stored_coords(self) -> np.ndarray | None:
        """(N, 2) float64 in the file's own unit."""
        coords = self.coords_array
        if coords is None:
            return None
        values = self._per_instance("coords", coords, (self.num_instances, 2)).numpy()
        return corners_of(values) if "centres" in self.arrays else values

    def tumour_fraction(self) -> Tensor | None:
        """(N,) float32 in [0, 1], tumour area of each instance; None where the file has none, or has labels."""
        fractions = None if self._find(LABEL_KEYS) is not None else self._find(FRACTION_KEYS)
        if fractions is None:
            return None
        values = self._per_instance("tumour_fraction", fractions, (self.num_instances,)).float()
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"{self.path}: tumour_fraction must lie in [0, 1]")
        return values

    @property
    def has_labels(self) -> bool:
        """Whether the file says what its instances are, by labels or tumour fractions."""
        return self._find(LABEL_KEYS) is not None or self._find(FRACTION_KEYS) is not None

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
        present = [key for key in keys if key in self.arrays]
        if len(present) > 1:
            raise UserError(f"{self.path} has both {present[0]!r} and {present[1]!r}: keep one of them")
        return stored_array(self.path, self.arrays, present[0]) if present else None

    def _per_instance(self, name: str, array: Any, shape: tuple[int, ...]) -> Tensor:
        found = tuple(array.shape or ())
        if found not in (shape, (1, *shape), (*shape, 1)):
            raise UserError(f"{self.path}: {name} of shape {found} for {self.num_instances} instances")
        _require_numbers(self.path, name, array)
        with readable(self.path):
            return _tensor(array[()]).reshape(shape).double()


def converted(path: Path, values: Tensor, positions: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Features (M, D) of the instances at `positions` (M,), None = from 0 on, in another type.

    Raises:
        UserError: NaN or infinite features, or values beyond the range of `dtype`.
    """
    result = values.to(dtype)
    if result.isfinite().all():
        return result
    finite = values.isfinite()
    if finite.all():
        raise too_large(path, float(values.abs().max()))
    row = int((~finite.all(dim=1)).nonzero()[0])
    row = row if positions is None else int(positions[row])
    raise UserError(f"{path}: NaN or infinite features in instance {row} (counted from 0)")


def too_large(path: Path, largest: float) -> UserError:
    """What to say of features beyond the range of the type."""
    return UserError(f"{path}: features up to {largest:g} are too large for half precision: set data.dtype=float32")


def _tensor(array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))  # files may be big-endian


def _require_numbers(path: Path, name: str, array: Any) -> None:
    """UserError for an array of anything but integers and floating-point numbers; labels may be truth values."""
    if isinstance(array, Tensor):
        is_number = not array.is_complex() and (array.dtype != torch.bool or name == "instance labels")
        is_number &= not (array.is_floating_point() and array.dtype.itemsize < 2)  # with which nothing computes
    else:
        is_number = array.dtype.kind in ("biuf" if name == "instance labels" else "iuf")
    if not is_number:
        raise UserError(f"{path}: {name} are of type {array.dtype}: integers or floating-point numbers are expected")
