"""The named arrays of a feature file, taken only as far as the file itself holds them.

Files come from elsewhere: nothing in them is executed, no link in them is followed, and no memory is taken for what
they merely declare.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.files.sidecars import (
    COORDINATES,
    coordinates_path,
    read_coordinates,
    record_path,
)

HDF5_SUFFIXES, TORCH_SUFFIXES = (".h5", ".hdf5"), (".pt", ".pth")
SUFFIXES = (*HDF5_SUFFIXES, *TORCH_SUFFIXES, ".npy", ".npz")
"""In small letters or capitals; a folder of features holds these."""
INDEX = ".index.npz"
"""slideflow's positions of the instances of `SLIDE.pt`, in `SLIDE.index.npz`."""
MOST_EXPANSION = 100
"""Compressed data that claim to be more times as large as they are on the disk are refused; features pack 1 to 5 times,
long runs of zeros 1000 times."""
HARMLESS = 64 * 2**20
"""Bytes up to which compressed data may expand as much as they like."""


class Place(NamedTuple):
    """Where in its file an array lies, row after row."""

    offset: int
    """Bytes from the beginning of the file."""
    dtype: str
    """NumPy's word for it, byte order included."""


def is_feature_file(path: Path) -> bool:
    """Whether the name is one of a feature file: of `SUFFIXES`, and not slideflow's or hs2p's positions."""
    return path.suffix.lower() in SUFFIXES and not path.name.lower().endswith((INDEX, COORDINATES))


def is_hdf5(path: Path) -> bool:
    """Whether the name is one of an HDF5 file."""
    return path.suffix.lower() in HDF5_SUFFIXES


def open_arrays(path: Path) -> Mapping[str, Any]:
    """The named arrays of a file, left on disk where the format allows it; a bare array is called `features`.

    Take them by `stored_array`, which looks at what stands behind them.

    Raises:
        UserError: a missing or unreadable file, an unknown suffix, or an archive that expands beyond reason.
    """
    kind = path.suffix.lower()
    if kind not in (*SUFFIXES, ".csv"):
        raise UserError(f"{path}: unknown kind of feature file; known: {', '.join(SUFFIXES)}, .csv")
    if not path.is_file():
        raise UserError(f"{path}: no such feature file")
    with readable(path):
        if kind in HDF5_SUFFIXES:
            return h5py.File(path, "r")
        if kind == ".csv":  # DSMIL: a header 0,1,2,..., then one line for each instance
            return {"features": pd.read_csv(path, dtype=np.float32).to_numpy()}
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            _refuse_bombs(path)
        if kind in TORCH_SUFFIXES:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
            if isinstance(content, list):  # eva: a tensor for each tile or batch of tiles
                content = torch.cat([one.unsqueeze(0) if one.ndim == 1 else one for one in content]).numpy()
            arrays = content if isinstance(content, dict) else {"features": content}
            return arrays if "coords" in arrays else arrays | _indexed(path) | _listed(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if kind == ".npy":
            return {"features": array} | _beside(path)
        beside = _listed(path)
        return {**array, **beside} if beside else array


def stored_array(path: Path, arrays: Mapping[str, Any], key: str) -> Any:
    """An array of an open file: an HDF5 data set, still on disk, a NumPy array or a tensor.

    Raises:
        UserError: a link, data kept elsewhere, no array, or one of a shape that no stored data stand behind.
    """
    with readable(path):
        if isinstance(arrays, h5py.File):
            return _data_set(path, arrays, key)
        array = arrays[key]
    if not isinstance(array, Tensor | np.ndarray):
        raise UserError(f"{path}: {key} is no array but a {type(array).__name__}: save tensors or arrays")
    if isinstance(array, Tensor):
        _refuse_unbacked(path, array, key)
        return array.detach()
    return array


def bytes_held(path: Path, array: Any) -> int:
    """Bytes of memory that an array from `stored_array` takes: none where it is read from the disk piece by piece."""
    is_on_disk = isinstance(array, h5py.Dataset | np.memmap) or (isinstance(array, Tensor) and zipfile.is_zipfile(path))
    return 0 if is_on_disk else int(array.nbytes)


def place_of(array: Any) -> Place | None:
    """Where an array of an open file lies; None where it is chunked, compressed, in memory, or not of numbers.

    Args:
        array: as from `stored_array`.
    """
    if isinstance(array, h5py.Dataset):
        offset = array.id.get_offset() if array.chunks is None else None
    elif isinstance(array, np.memmap) and array.flags.c_contiguous:
        offset = array.offset
    else:
        return None
    return None if offset is None or array.dtype.kind not in "iuf" else Place(int(offset), array.dtype.str)


def _data_set(path: Path, file: h5py.File, key: str) -> h5py.Dataset:
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {key} is a link to another place: refused; store the array itself in the file")
    array = file[key]
    if not isinstance(array, h5py.Dataset):
        raise UserError(f"{path}: {key} is no array but a group: store the features as one data set")
    if array.external or array.is_virtual:
        raise UserError(f"{path}: {key} is kept in another file (external or virtual data): refused; copy it in")
    if array.shape is not None:
        is_filtered = array.id.get_create_plist().get_nfilters() > 0
        declared, stored = math.prod(array.shape) * array.dtype.itemsize, array.id.get_storage_size()
        if (not is_filtered and stored < declared) or _expands(declared, stored):
            raise UserError(f"{path}: {key} declares the shape {array.shape}, {declared} bytes, and stores {stored}")
    return array


def _refuse_bombs(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if _expands(member.file_size, member.compress_size):
                raise UserError(
                    f"{path}: {member.filename} expands from {member.compress_size} to {member.file_size} bytes, "
                    "which no features do: too large, refused"
                )


def _expands(declared: int, stored: int) -> bool:
    return declared > max(HARMLESS, MOST_EXPANSION * stored)


def _refuse_unbacked(path: Path, tensor: Tensor, key: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UserError(f"{path}: {key} is a sparse, quantised or meta tensor: features are of a dense type")
    declared, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if declared > stored:
        raise UserError(
            f"{path}: {key} is an expanded tensor, {declared} bytes of which {stored} are stored: save a copy of it"
        )


def companions(path: Path) -> dict[str, Path]:
    """Files that hold more arrays of a feature file, by name, whether they are there or not.

    torchmil keeps those of a `.npy` file in `features/` in the folders `coords/` and `patch_labels/` beside it;
    slideflow the positions (N, 2) of the middles of tiles, level-0 pixels, beside its `.pt` file; slide2vec those of
    their corners, and a record of their making.
    """
    listed = coordinates_path(path)
    of_slide2vec = {} if listed is None else {"tiles": listed, "record": record_path(path)}
    if path.suffix.lower() in TORCH_SUFFIXES:
        return {"centres": path.with_name(f"{path.stem}{INDEX}")} | of_slide2vec
    if path.suffix.lower() == ".npz":
        return of_slide2vec
    inside = next((above for above in path.parents[:2] if above.name == "features"), None)
    if path.suffix.lower() != ".npy" or inside is None:
        return {}
    return {kind: inside.parent / kind / path.name for kind in ("coords", "patch_labels")}


def _beside(path: Path) -> dict[str, np.ndarray]:
    files = companions(path).items()
    return {kind: np.load(file, mmap_mode="r", allow_pickle=False) for kind, file in files if file.is_file()}


def _indexed(path: Path) -> dict[str, np.ndarray]:
    index = companions(path)["centres"]
    if not index.is_file():
        return {}
    with readable(index):
        _refuse_bombs(index)
        return {"centres": np.load(index, allow_pickle=False)["arr_0"]}


def _listed(path: Path) -> dict[str, np.ndarray]:
    beside = coordinates_path(path)
    if beside is not None and beside.is_file():
        with readable(beside):
            _refuse_bombs(beside)
    return read_coordinates(path)
