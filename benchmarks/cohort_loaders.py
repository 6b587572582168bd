"""Loaders beside which a cohort's is timed: bare h5py, and what those of CLAM and torchmil do."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_mil.data.features.files.file_set import FeatureFiles


class Loaded:
    """Files read one by one, in order; also a data set of a `DataLoader`."""

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], Tensor]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(self.paths[index])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.read, self.paths)


def read_h5(path: Path) -> Tensor:
    """All features of a file."""
    with h5py.File(path) as file:
        return torch.from_numpy(file["features"][:])


def load_npy(path: Path) -> Tensor:
    """All features of a file."""
    return torch.from_numpy(np.load(path))


def concatenated(bags: list[Tensor]) -> Tensor:
    """As CLAM's `collate_MIL`."""
    return torch.cat(bags)


def padded(bags: list[Tensor]) -> tuple[Tensor, Tensor]:
    """As torchmil's `collate_fn`: features (B, M, D) and which are real (B, M)."""
    features = nn.utils.rnn.pad_sequence(bags, batch_first=True)
    return features, torch.arange(features.shape[1]) < torch.tensor([len(bag) for bag in bags])[:, None]


def torchmil_loader(folder: Path, names: Sequence[str]) -> dict[str, Iterable[Any]]:
    """Its own classes on the same files, where it is installed; it keeps what it has read, so each bag comes once."""
    if importlib.util.find_spec("torchmil") is None:
        return {}
    return {"torchmil": Torchmil(folder, names)}


class Torchmil:
    """A new data set of its for each round, without what the last one has kept."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.settings = {"features_path": str(folder), "bag_keys": ["X"], "bag_names": sorted(set(names))}

    def __iter__(self) -> Iterator[Any]:
        from torchmil.data import collate_fn
        from torchmil.datasets import ProcessedMILDataset

        return iter(DataLoader(ProcessedMILDataset(**self.settings, verbose=False), collate_fn=collate_fn))


class RunsByH5py:
    """Steps on instances, each run of neighbours read by h5py from files that stay open."""

    def __init__(self, files: FeatureFiles, steps: Sequence[Tensor]) -> None:
        self.files, self.steps = files, steps

    def __iter__(self) -> Iterator[Tensor]:
        with ExitStack() as stack:
            features: dict[int, h5py.Dataset] = {}
            for positions in self.steps:
                batch = np.empty((len(positions), self.files.shape[1]), np.float16)
                for owner, first, start, stop in self.files.runs(positions):
                    if owner not in features:
                        features[owner] = stack.enter_context(h5py.File(self.files.paths[owner]))["features"]
                    batch[start:stop] = features[owner][first : first + stop - start]
                yield torch.from_numpy(batch)
