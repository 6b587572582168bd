"""Arrays of known feature files, read from where they lie without the library of their format."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.files.arrays import Place
from kd_mil.data.features.files.facts import FileFacts
from kd_mil.data.features.files.feature_file import converted
from kd_mil.data.features.files.positions import Statements, level0_pixels


class RawFile:
    """The features and positions of one file whose facts are known; serves as `files.FeatureFile`.

    Args:
        path: the file.
        facts: with the places of its arrays.

    Raises:
        UserError: the file is gone, or is no longer the one that the facts are of.
    """

    held_bytes = 0
    """Nothing is kept in memory."""

    def __init__(self, path: Path, facts: FileFacts) -> None:
        self.path, self.facts = path, facts
        with readable(path):
            self._file = os.open(path, os.O_RDONLY)
            status = os.fstat(self._file)
        facts.require_same(path, status)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    @property
    def stated(self) -> Statements:
        """What the file says of its tiles."""
        return self.facts.stated

    def read(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Features (M, D) at `positions` (M,) int64, in that order; errors as of `FeatureFile.read`."""
        assert self.facts.features is not None
        distinct, inverse = positions.unique(return_inverse=True)
        rows = self._rows(self.facts.features, self.facts.width, distinct.numpy())
        return converted(self.path, torch.from_numpy(rows), distinct, dtype)[inverse]

    def read_into(self, rows: np.ndarray, first: int) -> None:
        """Fill rows (M, D) of a float type with the features of instances `first` to `first + M`.

        They are not looked at again: when the facts were taken all were finite, and the file has not changed since.
        """
        place = self.facts.features
        assert place is not None
        dtype = np.dtype(place.dtype)
        stored = rows if dtype == rows.dtype else np.empty(rows.shape, dtype)
        self._read_into(stored, place.offset + first * self.facts.width * dtype.itemsize)
        if stored is not rows:
            torch.from_numpy(rows).copy_(torch.from_numpy(stored.astype(dtype.newbyteorder("="), copy=False)))

    def read_all(self, dtype: torch.dtype) -> Tensor:
        """As `FeatureFile.read_all`."""
        assert self.facts.features is not None
        rows = self._all(self.facts.features, self.facts.width)
        return converted(self.path, torch.from_numpy(rows), None, dtype)

    def coords(self, slide_mpp: float | None = None) -> Tensor | None:
        """(N, 2) int64 level-0 pixels; as `FeatureFile.coords`."""
        if self.facts.coords is None:
            return None
        stored, stated = self._all(self.facts.coords, 2), self.facts.stated
        if stored.dtype.kind == "i" and stated.micrometres is None and not stated.is_unclear:
            return torch.from_numpy(stored.astype(np.int64))  # they were checked with the other facts
        pixels = level0_pixels(self.path, stored.astype(np.float64), stated, slide_mpp)
        return None if pixels is None else torch.from_numpy(pixels)

    def _all(self, place: Place, width: int) -> np.ndarray:
        """An array (N, W), as `_rows`."""
        values = np.empty((self.facts.num_instances, width), place.dtype)
        self._read_into(values, place.offset)
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def _rows(self, place: Place, width: int, rows: np.ndarray) -> np.ndarray:
        """Rows (M, W) of an array, in the byte order of the machine; consecutive ones are read at once."""
        dtype = np.dtype(place.dtype)
        values = np.empty((len(rows), width), dtype)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            self._read_into(values[start:end], place.offset + int(rows[start]) * width * dtype.itemsize)
        return values.astype(dtype.newbyteorder("="), copy=False)

    def _read_into(self, values: np.ndarray, offset: int) -> None:
        with readable(self.path):
            done = os.preadv(self._file, (values.data,), offset)
            rest = values.reshape(-1).view(np.uint8).data[done:] if done < values.nbytes else b""
            while len(rest):
                count = os.preadv(self._file, (rest,), offset + values.nbytes - len(rest))
                if not count:
                    raise UserError(f"{self.path} ended while it was read: has it been replaced? start again")
                rest = rest[count:]
