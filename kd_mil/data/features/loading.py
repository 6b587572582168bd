"""The feature files of a set at start: facts of all, and their features and positions where they fit in memory."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.data.bags import narrowed
from kd_mil.data.features.files.facts import FileFacts
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.file_set import FeatureFiles, FilePositions, open_known
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.files.raw import RawFile


class LoadedFiles(NamedTuple):
    """What start-up takes from B files of N instances."""

    facts: list[FileFacts]
    instances: Tensor | FeatureFiles
    """(N, D), in memory or left in the files."""
    coords: Tensor | FilePositions | None
    """(N, 2) level-0 pixels, in memory or left in the files; None where some file has none."""


def load_files(
    paths: Sequence[Path],
    slide_mpps: Sequence[float | None],
    index: FeatureIndex,
    dtype: torch.dtype,
    resident_bytes: float,
) -> LoadedFiles:
    """Look at all files, each opened once at most: new ones to read them through, known ones if all fit in memory.

    Args:
        paths: B files.
        slide_mpps: µm per level-0 pixel of the slide of each, where it is known.
        index: what is known of them, and where more becomes known.
        dtype: type of the features in memory.
        resident_bytes: sets of features up to this size are read into memory.

    Raises:
        UserError: a file that `facts.inspect` refuses, features of unequal width, or beyond the range of `dtype`.
    """
    known = index.known(paths)
    parts = _Parts(dtype, resident_bytes)
    parts.make_room(sum(_bytes(facts, dtype) for facts in known if facts is not None), held=False)
    facts: list[FileFacts] = []
    placed: list[bool] = []
    progress = tqdm(paths, desc="feature files", unit="bag", disable=None, leave=False)
    for path, found, slide_mpp in zip(progress, known, slide_mpps, strict=True):
        opened: FeatureFile | RawFile | None = None
        features = None
        if found is None:
            found, opened, features = index.inspect(path, dtype if parts.fit else None)
        elif parts.fit:
            opened = open_known(path, found)
            features = opened.read_all(dtype)
        facts.append(found)
        placed.append(found.places(slide_mpp, path))
        _check(found, facts[0], dtype, path, paths[0])
        if opened is not None and features is not None:
            parts.add(features, found, opened.coords(slide_mpp) if placed[-1] else None)
    if any(placed) and not all(placed):
        absent = len(paths) - sum(placed)
        warnings.warn(f"{absent} of {len(paths)} feature files have no coords: all left out", stacklevel=2)
    sizes = torch.tensor([one.num_instances for one in facts])
    if parts.fit:
        return LoadedFiles(facts, parts.features(), torch.cat(parts.coords) if all(placed) else None)
    files = FeatureFiles(paths, sizes, facts[0].width, dtype, facts)
    return LoadedFiles(facts, files, FilePositions(files, slide_mpps) if all(placed) else None)


def _check(facts: FileFacts, first: FileFacts, dtype: torch.dtype, path: Path, first_path: Path) -> None:
    if facts.width != first.width:
        raise UserError(
            f"{path} has {facts.width} features per instance, {first_path} has {first.width}: use one encoder"
        )
    facts.require_type(dtype, path)


class _Parts:
    """Features and positions file by file, as long as all fit in memory."""

    def __init__(self, dtype: torch.dtype, most: float) -> None:
        self.dtype, self.most, self.size, self.fit = dtype, most, 0, True
        self.coords: list[Tensor] = []
        self._features: list[Tensor] = []

    def make_room(self, size: int, held: bool = True) -> None:
        """Give all up where this many bytes more are too many; they count on where they are `held`."""
        self.fit = self.fit and self.size + size <= self.most
        self.size += size if held else 0
        if not self.fit:
            self._features, self.coords = [], []

    def add(self, features: Tensor, facts: FileFacts, coords: Tensor | None) -> None:
        """Keep those of one more file."""
        self.make_room(_bytes(facts, self.dtype))
        if self.fit:
            self._features.append(features)
            self.coords += [] if coords is None else [narrowed(coords, (torch.int32,))]

    def features(self) -> Tensor:
        """All features (N, D); parts are let go as they are copied, so that there are never two copies."""
        count = sum(len(part) for part in self._features)
        whole = torch.empty((count, self._features[0].shape[1]), dtype=self.dtype)
        start = 0
        for number, part in enumerate(self._features):
            whole[start : start + len(part)] = part
            start += len(part)
            self._features[number] = part[:0]
        return whole


def _bytes(facts: FileFacts, dtype: torch.dtype) -> int:
    return facts.num_instances * facts.width * dtype.itemsize
