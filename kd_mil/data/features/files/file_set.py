"""The feature files of many bags, end to end: read whole, or by position from their files."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.data.features.files.facts import FileFacts
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.raw import RawFile


class FeatureFiles:
    """Lazy instances (N, D) of many bags, each in its own file, end to end.

    Every process opens its own files, when they are asked for, and keeps the last ones, up to `max_open` files and
    `max_bytes` of what such as `.npz` hold in memory.

    Args:
        paths: B files.
        sizes: (B,) int64 instances in each.
        width: D.
        dtype: features are converted to it.
        facts: of each file; None = they are opened by their library.
        max_open: files kept open by a process.
        max_bytes: memory that they may take, but for the last of them.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        sizes: Tensor,
        width: int,
        dtype: torch.dtype,
        facts: Sequence[FileFacts] | None = None,
        max_open: int = 128,
        max_bytes: int = 2**30,
    ) -> None:
        self.paths, self.dtype, self.max_open, self.max_bytes = list(paths), dtype, max_open, max_bytes
        self.facts = None if facts is None else list(facts)
        self.ends = sizes.cumsum(0)
        self.shape: tuple[int, ...] = (int(sizes.sum()), width)
        self._open: OrderedDict[int, FeatureFile | RawFile] = OrderedDict()
        self._held = 0
        self._process = os.getpid()

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Features (M, D) at `positions` (M,) int64, in that order; errors as in `FeatureFile.read`."""
        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        rows = np.empty((len(positions), self.shape[1]), dtype)  # in large pages of memory, as torch's are not
        for owner, first, start, stop in self.runs(positions):
            self.file(owner).read_into(rows[start:stop], first)
        return torch.from_numpy(rows)

    def runs(self, positions: Tensor) -> Iterator[tuple[int, int, int, int]]:
        """Cut `positions` (M,) into pieces whose instances lie one after the other in one file, file after file.

        Yields:
            Number of the file, row of the first instance in it, and where the piece starts and stops in `positions`.
        """
        at, ends = positions.numpy(), self.ends.numpy()
        breaks = np.flatnonzero(np.diff(at) != 1) + 1
        starts = np.concatenate([np.zeros(min(1, len(at)), np.int64), breaks])
        stops = np.append(breaks, len(at))[: len(starts)]
        order = np.argsort(at[starts], kind="stable")
        owners = np.searchsorted(ends, at[starts], side="right")
        befores = np.concatenate([[0], ends])[owners]
        pieces = (owners, at[starts] - befores, starts, stops)
        for owner, first, start, stop in zip(*(column[order].tolist() for column in pieces), strict=True):
            while start < stop:
                count = min(stop - start, int(ends[owner]) - (int(ends[owner - 1]) if owner else 0) - first)
                yield owner, first, start, start + count
                owner, first, start = owner + 1, 0, start + count

    def file(self, owner: int) -> FeatureFile | RawFile:
        """One of the files, open."""
        if self._process != os.getpid():  # a forked worker must not read through its parent's file handles
            self._open, self._held, self._process = OrderedDict(), 0, os.getpid()
        if owner not in self._open:
            path, facts = self.paths[owner], None if self.facts is None else self.facts[owner]
            self._open[owner] = FeatureFile(path) if facts is None else open_known(path, facts)
            self._held += self._open[owner].held_bytes
        self._open.move_to_end(owner)
        while len(self._open) > 1 and (len(self._open) > self.max_open or self._held > self.max_bytes):
            self._held -= self._open.popitem(last=False)[1].held_bytes
        return self._open[owner]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_held": 0}


class FilePositions:
    """Lazy positions (N, 2) of the tiles of many bags, as `Bags.coords`.

    Args:
        files: the files; all of them have positions that can be told in pixels.
        slide_mpps: µm per level-0 pixel of the slide of each file, where it is known.
    """

    def __init__(self, files: FeatureFiles, slide_mpps: Sequence[float | None]) -> None:
        self.files, self.slide_mpps = files, list(slide_mpps)

    def __getitem__(self, positions: Tensor) -> Tensor:
        """(M, 2) int64 level-0 pixels of the instances at `positions` (M,) int64; errors as `FeatureFile.coords`."""
        coords = torch.empty(len(positions), 2, dtype=torch.long)
        for owner, pieces in groupby(self.files.runs(positions), key=itemgetter(0)):
            of_file = self.files.file(owner).coords(self.slide_mpps[owner])
            assert of_file is not None, f"{self.files.paths[owner]} has positions no more"
            for _, first, start, stop in pieces:
                coords[start:stop] = of_file[first : first + stop - start]
        return coords


def open_known(path: Path, facts: FileFacts) -> FeatureFile | RawFile:
    """A file whose facts are known, by the quickest way.

    Raises:
        UserError: it is no longer the one that the facts are of, or can no longer be read.
    """
    if facts.is_raw:
        return RawFile(path, facts)
    facts.require_current(path)
    file = FeatureFile(path)
    file.is_checked = True
    return file
