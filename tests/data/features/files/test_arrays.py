"""Files that declare more than they hold, lead elsewhere, or are of types that no features have."""

import zipfile

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.layouts import feature_files
from kd_mil.data.features.npz import read_arrays

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])


def everything(file):
    return file.read(torch.arange(file.num_instances), torch.float32).numpy()


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", ">i2", "u1", "f2"])
@pytest.mark.parametrize("suffix", [".h5", ".H5", ".npy", ".npz"])
def test_types_of_numbers_and_capitals(tmp_path, dtype, suffix):
    path, features = tmp_path / f"a{suffix}", FEATURES.astype(dtype)
    if suffix.lower() == ".h5":
        with h5py.File(path, "w") as file:
            file["features"], file["coords"] = features, COORDS.astype(">i4")
        assert FeatureFile(path).coords().tolist() == COORDS.tolist()
    else:
        (np.save if suffix == ".npy" else lambda name, array: np.savez(name, features=array))(path, features)
    np.testing.assert_array_equal(everything(FeatureFile(path)), FEATURES)


@pytest.mark.parametrize("dtype", ["c8", "?", "S1", "M8[s]", "V4"])
@pytest.mark.parametrize("suffix", [".h5", ".npy", ".npz"])
def test_other_types_are_refused(tmp_path, dtype, suffix):
    path, features = tmp_path / f"a{suffix}", np.zeros((4, 3), dtype)
    if suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((4, 3), "S1" if dtype == "M8[s]" else dtype)  # HDF5 has no dates
    else:
        (np.save if suffix == ".npy" else lambda name, array: np.savez(name, features=array))(path, features)
    with pytest.raises(UserError, match=rf"a\{suffix}: features are of type"):
        FeatureFile(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_tensors_that_nothing_computes_with_are_refused(tmp_path, dtype):
    torch.save(torch.zeros(4, 3).to(dtype), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: features are of type"):
        FeatureFile(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(4, 3, dtype=torch.complex64), "are of type torch.complex64"),
        (torch.zeros(4, 3, dtype=torch.bool), "are of type torch.bool"),
        (torch.zeros(4, 3).to_sparse(), "sparse"),
        (torch.empty(4, 3, device="meta"), "meta"),
        (torch.zeros(1).expand(10**10, 8), "expanded tensor"),
        (torch.zeros(1, 8).expand(10**9, 8), "expanded tensor"),
        ([torch.zeros(4, 3)], "no array but a list"),
        (5, "no array but a int"),
    ],
)
def test_tensors_without_numbers_behind_them_are_refused(tmp_path, tensor, reason):
    torch.save({"features": tensor}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=rf"a\.pt: features .*{reason}"):
        FeatureFile(tmp_path / "a.pt")


def written(path, write):
    with h5py.File(path, "w") as file:
        write(file)
    return path


def virtual(file):
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", (4, 3))
    file.create_virtual_dataset("features", layout)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda f: f.create_dataset("features", (4, 3), "u1", external=[("/etc/passwd", 0, 12)]), "external"),
        (lambda f: f.__setitem__("features", h5py.ExternalLink("other.h5", "features")), "is a link"),
        (lambda f: f.__setitem__("features", h5py.SoftLink("/elsewhere")), "is a link|no features"),
        (virtual, "virtual"),
        (lambda f: f.create_dataset("features", (10**10, 8), "f4"), "declares the shape"),
        (lambda f: f.create_dataset("features", (10**8, 8), "f4", chunks=(1024, 8)), "declares the shape"),
        (
            lambda f: f.create_dataset("features", (10**10, 8), "f4", chunks=(1024, 8), compression="gzip"),
            "declares the shape",
        ),
        (lambda f: f.create_dataset("features", (20, 10**9), "f4", chunks=(1, 10**6)), "declares the shape"),
        (lambda f: f.create_group("features"), "no array but a group"),
        (lambda f: f.create_dataset("features", (4, 0), "f4"), "width is 0"),
        (lambda f: f.create_dataset("features", data=h5py.Empty("f4")), r"shape \(\)"),
    ],
)
def test_hdf5_holds_what_it_declares(tmp_path, write, reason):
    written(tmp_path / "other.h5", lambda file: file.create_dataset("features", data=FEATURES))
    with pytest.raises(UserError, match=rf"a\.h5.*({reason})"):
        FeatureFile(written(tmp_path / "a.h5", write))


def test_packed_and_chunked_files_are_read(tmp_path):
    features = np.zeros((4000, 8), np.float32)
    for number, form in enumerate(({"compression": "gzip"}, {"chunks": (100, 8)}, {"chunks": (7, 8), "shuffle": True})):
        path = written(tmp_path / f"{number}.h5", lambda file: file.create_dataset("features", data=features, **form))  # noqa: B023
        np.testing.assert_array_equal(everything(FeatureFile(path)), features)


@pytest.mark.parametrize("name", ["a.npz", "a.pt"])
def test_archives_that_expand_beyond_reason_are_refused_unread(tmp_path, name):
    with (
        zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w") as member,
    ):
        for _ in range(10):
            member.write(bytes(10 * 2**20))
    for read in (FeatureFile, lambda path: read_arrays(path, ("y",))):
        with pytest.raises(UserError, match=r"expands from .* to 104857600 bytes"):
            read(tmp_path / name)


@pytest.mark.parametrize("shape", [(-4, 3), (10**10, 8), (10**30, 8)])
def test_headers_that_lie_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", FEATURES)
    content = (tmp_path / "a.npy").read_bytes()
    there = b"(4, 3), }" + b" " * 40
    (tmp_path / "a.npy").write_bytes(content.replace(there, f"{shape}, }}".encode().ljust(len(there))))
    with pytest.raises(UserError, match=r"a\.npy: not readable as npy"):
        everything(FeatureFile(tmp_path / "a.npy"))


def test_slideflow_keeps_positions_beside_features(tmp_path):
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s.pt")
    np.savez(tmp_path / "s.index.npz", arr_0=COORDS + 128)
    assert FeatureFile(tmp_path / "s.pt").coords().tolist() == COORDS.tolist()
    assert feature_files(tmp_path) == {"s": tmp_path / "s.pt"}
    np.savez(tmp_path / "s.index.npz", arr_0=COORDS[:2])
    with pytest.raises(UserError, match=r"coords of shape \(2, 2\) for 4 instances"):
        FeatureFile(tmp_path / "s.pt").coords()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 2**40, 1e300])
def test_positions_that_cannot_be_are_refused(tmp_path, value):
    coords = COORDS.astype(float)
    coords[2, 1] = value
    np.savez(tmp_path / "a.npz", features=FEATURES, coords=coords)
    with pytest.raises(UserError, match=r"a\.npz: coords of instance 2 \(counted from 0\)"):
        FeatureFile(tmp_path / "a.npz").coords()


def test_positions_lie_on_the_slide_where_the_file_says_how_large_it_is(tmp_path):
    def write(file, width):
        file["features"], file["coords"] = FEATURES, COORDS
        file["coords"].attrs.update(level0_width=width, level0_height=300)

    assert FeatureFile(written(tmp_path / "a.h5", lambda file: write(file, 257))).coords() is not None
    with pytest.raises(UserError, match=r"coords of instance 1 .* beyond a slide of"):
        FeatureFile(written(tmp_path / "a.h5", lambda file: write(file, 256))).coords()
    np.savez(tmp_path / "a.npz", features=FEATURES, coords=COORDS.astype(complex))
    with pytest.raises(UserError, match="coords are of type complex128"):
        FeatureFile(tmp_path / "a.npz").coords()
