"""Features in object stores: fsspec's own memory, local files by URL, and servers of S3 and Google Cloud Storage."""

import fsspec
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import is_remote
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.remote import RemoteFiles

NAMES = "abcdef"
FEATURES = {name: np.random.default_rng(seed).normal(size=(seed + 1, 5)).astype(np.float32)
            for seed, name in enumerate(NAMES)}  # fmt: skip
PARTS = ("train", "train", "val", "val", "test", "test")


@pytest.fixture(params=["memory", "file", "s3", "gs"])
def bucket(request, tmp_path):
    """The URL of a folder with a manifest and features below it."""
    stores = {"memory": lambda: "memory://bucket", "file": lambda: f"file://{tmp_path}/bucket"}
    store = stores.get(request.param, lambda: request.getfixturevalue(request.param))()
    url = f"{store}/{tmp_path.name}"
    rows = ["slide_id,label,split,feature_path"]
    for number, name in enumerate(NAMES):
        put(f"{url}/features/{name}.npy", FEATURES[name])
        rows.append(f"{name},{number % 2},{PARTS[number]},features/{name}.npy")
    with fsspec.open(f"{url}/manifest.csv", "w") as file:
        file.write("\n".join(rows))
    return url


def put(url, features):
    """By a file system of its own, as another program does: the one of the package must notice."""
    system, path = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    with system.open(path, "wb") as file:
        np.save(file, features)


def load(manifest, cache, **settings):
    data = FeatureBags(manifest, Loading(), cache_dir=str(cache), dtype="float32", **settings)
    data.setup()
    return data


@pytest.fixture
def copied(monkeypatch):
    """URLs that are copied from now on."""
    urls, copy = [], RemoteFiles._copy

    def noted(self, file):
        urls.append(file.url.rpartition("/")[2])
        copy(self, file)

    monkeypatch.setattr(RemoteFiles, "_copy", noted)
    return urls


def test_a_manifest_and_its_features_are_copied_once(bucket, tmp_path, copied):
    for expected in (["manifest.csv", *(f"{name}.npy" for name in NAMES)], []):
        data = load(f"{bucket}/manifest.csv", tmp_path / "cache")
        np.testing.assert_array_equal(data.bags.instances.numpy(), np.concatenate(list(FEATURES.values())))
        assert data.counts() == {"train": 2, "val": 2, "test": 2}
        assert sorted(copied) == sorted(expected)
        copied.clear()


def test_a_changed_file_is_copied_anew(bucket, tmp_path, copied):
    load(f"{bucket}/manifest.csv", tmp_path / "cache")
    copied.clear()
    put(f"{bucket}/features/c.npy", np.ones((7, 5), np.float32))
    data = load(f"{bucket}/manifest.csv", tmp_path / "cache")
    assert copied == ["c.npy"]
    assert data.bags.sizes.tolist() == [1, 2, 7, 4, 5, 6]


def test_folders_labels_and_splits_have_urls_too(bucket, tmp_path):
    with fsspec.open(f"{bucket}/labels.csv", "w") as file:
        file.write("\n".join(["slide_id,label", *(f"{name},{number % 2}" for number, name in enumerate(NAMES))]))
    with fsspec.open(f"{bucket}/splits_0.csv", "w") as file:
        file.write("train,val,test\na,c,e\nb,d,f\n")
    urls = {"labels": f"{bucket}/labels.csv", "split_file": f"{bucket}/splits_0.csv"}
    data = load(f"{bucket}/features", tmp_path / "cache", **urls)
    assert data.bags.bag_ids == list(NAMES)
    assert data.splits.test.tolist() == [4, 5]


def test_a_local_manifest_may_name_remote_features(bucket, tmp_path):
    rows = [f"{name},{number % 2},{PARTS[number]},{bucket}/features/{name}.npy" for number, name in enumerate(NAMES)]
    (tmp_path / "here.csv").write_text("\n".join(["slide_id,label,split,feature_path", *rows]))
    assert torch.equal(
        load(str(tmp_path / "here.csv"), tmp_path / "cache").bags.instances,
        load(f"{bucket}/manifest.csv", tmp_path / "cache").bags.instances,
    )
    (tmp_path / "relative.csv").write_text("\n".join(["slide_id,label,split,feature_path", *rows]).replace(bucket, "."))
    data = load(str(tmp_path / "relative.csv"), tmp_path / "cache", root=bucket)
    assert data.bags.sizes.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none/manifest.csv", "memory://bucket/none/manifest.csv: no such file or folder"),
        ("memory://bucket/nothing", "memory://bucket/nothing: no tables and no feature files there"),
        ("nosuchprotocol://x/manifest.csv", r"nosuchprotocol://x/manifest.csv: .*pip install 'kd-mil\[remote\]'"),
        ("memory://bucket/../manifest.csv", r"leave out \.\."),
    ],
)
def test_faults_are_one_line(tmp_path, url, message):
    with pytest.raises(UserError, match=message):
        load(url, tmp_path / "cache")


def test_a_feature_file_that_is_not_there_is_named(bucket, tmp_path):
    system, _ = fsspec.core.url_to_fs(bucket)
    system.rm(f"{bucket}/features/d.npy")
    with pytest.raises(UserError, match=r"d\.npy: no such file"):
        load(f"{bucket}/manifest.csv", tmp_path / "cache")


def test_a_disk_without_room_is_found_out_before(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"copies of the features need .*set paths\.cache_dir=FOLDER"):
        load(f"{bucket}/manifest.csv", tmp_path / "cache")


def test_what_is_a_url():
    assert is_remote("s3://bucket/x")
    assert is_remote("gs://b")
    assert not any(map(is_remote, (None, "/a/b", "C:/x", "a:b", "features/s1.h5")))
