import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.facts import inspect
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.file_set import FeatureFiles
from kd_mil.data.features.files.raw import RawFile
from kd_mil.data.samplers import IndexedView

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])
LABELS = np.array([0, 1, 1, 0], dtype=np.uint8)


def write_h5(path, attributes=None, **arrays):
    with h5py.File(path, "w") as file:
        file.update(arrays)
        file.attrs.update(attributes or {})
    return path


def write(path, **arrays):
    """The same arrays in whichever format the suffix asks for."""
    if path.suffix == ".h5":
        return write_h5(path, **arrays)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, arrays["features"])
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def read(file, positions=(0, 1, 2, 3), dtype=torch.float32):
    return file.read(torch.tensor(positions), dtype)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt"])
@pytest.mark.parametrize("key", ["features", "feats", "X"])
@pytest.mark.parametrize("label_key", ["inst_labels", "patch_labels", "instance_labels", "y_inst"])
def test_every_key_is_read_in_every_format(tmp_path, suffix, key, label_key):
    file = FeatureFile(write(tmp_path / f"a{suffix}", **{key: FEATURES, "coords": COORDS, label_key: LABELS}))
    assert (file.num_instances, file.width) == (4, 3)
    assert torch.equal(read(file), torch.from_numpy(FEATURES))
    assert file.coords().tolist() == COORDS.tolist()
    assert file.instance_labels().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt", ".npy"])
def test_a_leading_axis_of_one_is_dropped(tmp_path, suffix):
    file = FeatureFile(write(tmp_path / f"a{suffix}", features=FEATURES[None]))
    assert (file.num_instances, file.width) == (4, 3)
    assert torch.equal(read(file, (2, 0)), torch.from_numpy(FEATURES[[2, 0]]))
    assert file.coords() is None
    assert file.instance_labels().tolist() == [-1] * 4


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_bare_tensor_is_read(tmp_path, zip_format):
    torch.save(torch.from_numpy(FEATURES), tmp_path / "a.pt", _use_new_zipfile_serialization=zip_format)
    assert torch.equal(read(FeatureFile(tmp_path / "a.pt")), torch.from_numpy(FEATURES))


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt", ".npy"])
@pytest.mark.parametrize("positions", [[3], [0, 1], [1, 2, 3], [3, 0], [2, 2, 0, 2], [3, 2, 1, 0]])
def test_positions_come_in_the_order_asked_for(tmp_path, suffix, positions):
    file = FeatureFile(write(tmp_path / f"a{suffix}", features=FEATURES))
    assert read(file, positions).tolist() == FEATURES[positions].tolist()


def test_features_are_converted(tmp_path):
    file = FeatureFile(write(tmp_path / "a.npy", features=FEATURES.astype(np.int32)))
    assert read(file, dtype=torch.float16).dtype == torch.float16
    assert read(file, dtype=torch.float16).tolist() == FEATURES.tolist()


def test_coordinates_in_micrometres_are_left_out(tmp_path):
    path = write_h5(tmp_path / "a.h5", {"unit": "um"}, feats=FEATURES, coords=COORDS * 0.5)
    with pytest.warns(UserWarning, match="micrometres"):
        assert FeatureFile(path).coords() is None


def test_a_real_slide_is_read(shared_data):
    path = shared_data("tcga-features-example") / "TCGA-AD-6964-01Z-00-DX1" / "features.h5"
    file = FeatureFile(path)
    with h5py.File(path) as stored:
        assert torch.equal(file.read(torch.arange(777), torch.float32), torch.from_numpy(stored["feats"][:]))
        assert file.coords().tolist() == stored["coords"][:].tolist()
    assert [25088 - 23040, 25088] == [2048, 25088]
    assert [23040, 25088] in file.coords().tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features_that_are_no_numbers_are_named(tmp_path, value, dtype):
    features = FEATURES.copy()
    features[2, 1] = value
    file = FeatureFile(write(tmp_path / "slide7.npy", features=features))
    with pytest.raises(UserError, match=r"slide7.npy: NaN or infinite features in instance 2"):
        read(file, (3, 2), dtype)
    assert read(file, (0, 3), dtype).tolist() == features[[0, 3]].tolist()


def test_features_too_large_for_half_precision_are_refused(tmp_path):
    file = FeatureFile(write(tmp_path / "slide7.npy", features=FEATURES * 10_000))
    assert float(read(file).max()) == 110_000
    with pytest.raises(UserError, match=r"slide7.npy: features up to 110000 .* set data.dtype=float32"):
        read(file, dtype=torch.float16)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": FEATURES}, "has no features: expected one of features, feats, X"),
        ({"features": FEATURES, "feats": FEATURES}, "has both 'features' and 'feats'"),
        ({"features": FEATURES[0]}, r"features of shape \(3,\), expected \(N, D\)"),
        ({"features": np.zeros((2, 3, 4))}, r"features of shape \(2, 3, 4\)"),
        ({"features": FEATURES[:0]}, "is an empty bag"),
        ({"features": FEATURES, "coords": COORDS[:3]}, r"coords of shape \(3, 2\) for 4 instances"),
        ({"features": FEATURES, "coords": COORDS.T}, r"coords of shape \(2, 4\) for 4 instances"),
        ({"features": FEATURES, "inst_labels": LABELS[:2]}, r"instance labels of shape \(2,\) for 4 instances"),
        ({"features": FEATURES, "inst_labels": LABELS * 0.3}, "instance labels must be integers"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt"])
def test_wrong_contents_are_refused(tmp_path, suffix, arrays, message):
    path = write(tmp_path / f"slide7{suffix}", **arrays)
    with pytest.raises(UserError, match=f"slide7{suffix}.*{message}"):
        _ = [(file.coords(), file.instance_labels()) for file in [FeatureFile(path)]]


class Malicious:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt", ".npy"])
def test_damaged_files_are_refused(tmp_path, suffix):
    path = write(tmp_path / f"slide7{suffix}", features=FEATURES)
    whole = path.read_bytes()
    for broken in (b"", b"damaged", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=f"slide7{suffix}: not readable as {suffix[1:]}"):
            read(FeatureFile(path))


def test_pickled_objects_are_refused(tmp_path, capsys):
    torch.save({"features": Malicious()}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", features=np.array([Malicious()], dtype=object))
    for suffix in ("pt", "npy", "npz"):
        with pytest.raises(UserError, match="not readable"):
            FeatureFile(tmp_path / f"a.{suffix}")
    assert "code was run" not in capsys.readouterr().out


def test_unknown_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a.txt: unknown kind of feature file; known: .h5"):
        FeatureFile(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"b.pt: no such feature file"):
        FeatureFile(tmp_path / "b.pt")


@pytest.fixture
def files(tmp_path):
    """Four bags in four formats, whose features count up from bag to bag."""
    sizes = torch.tensor([3, 1, 4, 2])
    everything = torch.arange(30, dtype=torch.float32).view(10, 3)
    paths = []
    for features, suffix in zip(everything.split(sizes.tolist()), (".h5", ".npy", ".pt", ".npz"), strict=True):
        paths.append(write(tmp_path / f"{len(paths)}{suffix}", features=features.numpy()))
    return FeatureFiles(paths, sizes, width=3, dtype=torch.float32), everything


def test_positions_across_files(files):
    reader, everything = files
    assert reader.shape == (10, 3)
    assert torch.equal(reader[torch.arange(10)], everything)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        positions = torch.randint(10, (7,), generator=generator)
        assert torch.equal(reader[positions], everything[positions])


def test_runs_are_read_at_once_file_after_file(files):
    """Files of 3, 1, 4 and 2: by hand, (file, row in it, start, stop)."""
    reader, _ = files
    assert list(reader.runs(torch.arange(1, 9))) == [(0, 1, 0, 2), (1, 0, 2, 3), (2, 0, 3, 7), (3, 0, 7, 8)]
    assert list(reader.runs(torch.tensor([9, 4, 5, 5, 0]))) == [(0, 0, 4, 5), (2, 0, 1, 3), (2, 1, 3, 4), (3, 1, 0, 1)]
    assert list(reader.runs(torch.empty(0, dtype=torch.long))) == []


@pytest.mark.parametrize("stored", ["<f4 <f4", ">f4 >f4", "<f2 <f2", "<i4 <i4", "<f2 <f4", "<f4 >f4"])
def test_known_files_are_read_from_their_places_in_any_type(stored, tmp_path):
    paths = [
        write(tmp_path / f"{start}.npy", features=(FEATURES * 3 + start).astype(dtype))
        for start, dtype in enumerate(stored.split())
    ]
    facts = [inspect(path, None)[0] for path in paths]
    everything = torch.from_numpy(np.concatenate([FEATURES * 3, FEATURES * 3 + 1])).half()
    reader = FeatureFiles(paths, torch.tensor([4, 4]), 3, torch.float16, facts)
    for positions in (torch.arange(8), torch.tensor([7, 0, 1, 5, 5])):
        assert torch.equal(reader[positions], everything[positions])
    assert {type(file) for file in reader._open.values()} == {RawFile}


def test_a_file_cut_while_it_is_open_is_a_line(tmp_path):
    path = write(tmp_path / "a.npy", features=FEATURES)
    reader = FeatureFiles([path], torch.tensor([4]), 3, torch.float32, [inspect(path, None)[0]])
    reader[torch.arange(4)]
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(UserError, match=r"a\.npy ended while it was read"):
        reader[torch.arange(4)]


def test_few_files_stay_open(files):
    reader, everything = files
    reader.max_open = 2
    for positions in (torch.tensor([9, 0, 5]), torch.tensor([3]), torch.arange(10)):
        assert torch.equal(reader[positions], everything[positions])
        assert len(reader._open) <= 2


def test_files_in_memory_are_bounded_by_bytes(tmp_path):
    paths = [write(tmp_path / f"{name}.npz", features=FEATURES) for name in "abc"]
    reader = FeatureFiles(paths, torch.tensor([4, 4, 4]), 3, torch.float32, max_bytes=2 * FEATURES.nbytes)
    everything = torch.from_numpy(np.concatenate([FEATURES] * 3))
    for positions in (torch.arange(12), torch.tensor([0, 11, 5])):
        assert torch.equal(reader[positions], everything[positions])
        assert len(reader._open) == 2
    reader.max_bytes = 1
    assert torch.equal(reader[torch.tensor([1])], everything[[1]])
    assert len(reader._open) == 1
    assert FeatureFile(write(tmp_path / "a.h5", features=FEATURES)).held_bytes == 0
    assert FeatureFile(write(tmp_path / "a.pt", features=FEATURES)).held_bytes == 0


def test_open_files_do_not_travel(files):
    reader, everything = files
    reader[torch.arange(10)]
    again = pickle.loads(pickle.dumps(reader))
    assert not again._open
    assert torch.equal(again[torch.tensor([8, 2])], everything[[8, 2]])


def test_file_handles_of_a_parent_process_are_not_used(files):
    reader, everything = files
    reader[torch.arange(10)]
    of_parent = set(map(id, reader._open.values()))
    kept, reader._process = list(reader._open.values()), -1  # as a forked worker finds it
    assert torch.equal(reader[torch.arange(10)], everything)
    assert not of_parent & set(map(id, reader._open.values()))
    assert len(kept) == 4


def test_workers_open_their_own_files(files):
    reader, everything = files
    reader[torch.arange(10)]  # open in the parent
    batches = [torch.tensor([9, 0]), torch.tensor([4, 3, 7])]
    loader = DataLoader(IndexedView(reader.__getitem__), sampler=batches, batch_size=None, num_workers=2)
    for positions, features in zip(batches, loader, strict=True):
        assert torch.equal(features, everything[positions])
