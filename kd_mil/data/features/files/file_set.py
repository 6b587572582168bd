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
        self._starts = [0, *self.ends.tolist()]
        self._stored = None if facts is None else stored_alike(facts)
        self.shape: tuple[int, ...] = (int(sizes.sum()), width)
        self._open: OrderedDict[int, FeatureFile | RawFile] = OrderedDict()
        self._held = 0
        self._process = os.getpid()

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Features (M, D) at `positions` (M,) int64, in that order; errors as in `FeatureFile.read`."""
        dtype, shape = torch.empty(0, dtype=self.dtype).numpy().dtype, (len(positions), self.shape[1])
        rows = np.empty(shape, self._stored or dtype)  # in large pages of memory, as torch's are not
        for owner, first, start, stop in self.runs(positions):
            self.file(owner).read_into(rows[start:stop], first)
        if rows.dtype == dtype:
            return torch.from_numpy(rows)
        return torch.from_numpy(np.empty(shape, dtype)).copy_(torch.from_numpy(rows))  # once, not for every run

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
        pieces = (owners, at[starts], starts, stops)
        for owner, place, start, stop in zip(*(column[order].tolist() for column in pieces), strict=True):
            while start < stop:
                count = min(stop - start, self._starts[owner + 1] - place)
                yield owner, place - self._starts[owner], start, start + count
                owner, place, start = owner + 1, place + count, start + count

    def file(self, owner: int) -> FeatureFile | RawFile:
        """One of the files, open."""
        if self._process != os.getpid():  # a forked worker must not read through its parent's file handles
            self._open, self._held, self._process = OrderedDict(), 0, os.getpid()
        known = self._open.get(owner)
        if known is not None:
            self._open.move_to_end(owner)
            return known
        path, facts = self.paths[owner], None if self.facts is None else self.facts[owner]
        self._open[owner] = file = FeatureFile(path) if facts is None else open_known(path, facts)
        self._held += file.held_bytes
        while len(self._open) > 1 and (len(self._open) > self.max_open or self._held > self.max_bytes):
            self._held -= self._open.popitem(last=False)[1].held_bytes
        return file

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


def stored_alike(facts: Sequence[FileFacts]) -> np.dtype | None:
    """The type of the features of all files, where they are read from their places and the machine has that type."""
    names = {place.dtype if (place := each.features) is not None and each.is_raw else None for each in facts}
    only = names.pop() if len(names) == 1 else None
    return None if only is None or not np.dtype(only).isnative else np.dtype(only)


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
