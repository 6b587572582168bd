import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.patches import class_folders
from kd_mil.data.patches.class_folders import find_part, list_folder, read_archive, read_class_folders

MEBIBYTE = 2**20


def save(path, value, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for number, name in enumerate(["stroma/b.png", "stroma/a.tif", "tumour/c.bmp", "tumour/d.PNG"]):
        save(root / name, number)
    save(root / "tumour/.hidden.png", 99)
    (root / "tumour/notes.txt").write_text("no image")
    return root


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "set.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(folder, arcname="train", filter=lambda member: None if "bmp" in member.name else member)
    return path


def test_a_folder_gives_sorted_classes_and_files(folder):
    part = list_folder(folder)
    assert part.class_names == ("stroma", "tumour")
    assert part.labels.tolist() == [0, 0, 1, 1]
    assert part.instances.shape == (4, 3, 4, 6)
    assert part.instances.read()[:, 1, 2, 3].tolist() == [1, 0, 2, 3]


def test_an_archive_gives_the_same_images(archive, tmp_path):
    part = read_class_folders(archive, image_size=None, cache_dir=str(tmp_path / "cache"), max_gib=1)
    assert part.class_names == ("stroma", "tumour")
    assert part.instances.dtype == torch.uint8
    assert sorted(zip(part.labels.tolist(), part.instances[:, 0, 0, 0].tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 3),
    ]


def test_an_archive_is_decoded_once(archive, tmp_path, monkeypatch):
    first = read_archive(archive, None, tmp_path / "cache", MEBIBYTE)
    monkeypatch.setattr(class_folders, "_decode_archive", lambda *_: pytest.fail("decoded again"))
    again = read_archive(archive, None, tmp_path / "cache", MEBIBYTE)
    assert torch.equal(first.instances, again.instances)
    assert torch.equal(first.labels, again.labels)
    assert first.class_names == again.class_names


def test_a_changed_archive_or_size_is_decoded_anew(archive, tmp_path):
    cache = tmp_path / "cache"
    read_archive(archive, None, cache, MEBIBYTE)
    assert read_archive(archive, 2, cache, MEBIBYTE).instances.shape == (3, 3, 2, 2)
    os.utime(archive, ns=(0, 0))
    read_archive(archive, None, cache, MEBIBYTE)
    assert len(list(cache.rglob("*"))) == 1 + 3
    assert not list(cache.rglob("*.part"))


def test_images_are_resized_on_request(folder):
    assert list_folder(folder, image_size=8).instances.read().shape == (4, 3, 8, 8)


def test_unequal_sizes_are_refused(folder, tmp_path):
    save(folder / "tumour/wide.png", 0, size=(4, 7))
    with pytest.raises(UserError, match=r"wide.png has 7x4 pixels, .*a.tif has 6x4: set data.image_size"):
        list_folder(folder)
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        tar.add(folder, arcname="odd")
    with pytest.raises(UserError, match=r"set data.image_size"):
        read_archive(tmp_path / "odd.tar", None, tmp_path, MEBIBYTE)


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "stroma/broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken.png: not a readable image"):
        list_folder(folder)
    with pytest.raises(UserError, match=r"broken.png: not a readable image"):
        list_folder(folder, image_size=4).instances.read()


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no class folders"):
        list_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no images"):
        list_folder(tmp_path)


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_a_damaged_archive_is_refused(folder, tmp_path, compression):
    path = tmp_path / f"set.tar.{compression}"
    with tarfile.open(path, f"w:{compression}") as tar:
        tar.add(folder, arcname="set")
    whole = path.read_bytes()
    content = next(end for end in range(0, len(whole), 512) if not any(whole[end:])) if not compression else len(whole)
    lengths = [content * part // 8 for part in range(8)] + ([] if compression else [content])
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"set\.tar.*: not a readable"):
            read_archive(path, None, tmp_path / "cache", MEBIBYTE)
    path.write_bytes(b"no archive at all")
    with pytest.raises(UserError, match="not a readable tar archive"):
        read_archive(path, None, tmp_path / "cache", MEBIBYTE)
    assert not (tmp_path / "cache").exists()


def test_an_archive_of_train_and_test_is_refused(folder, tmp_path):
    path = tmp_path / "both.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname="train")
        tar.add(folder, arcname="test")
    with pytest.raises(UserError, match="pack train and test as two archives"):
        read_archive(path, None, tmp_path, MEBIBYTE)


def test_an_archive_never_writes_outside_the_cache(tmp_path):
    pixels = io.BytesIO()
    Image.new("RGB", (4, 4)).save(pixels, "png")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for name in ("../../a/out.png", "../../b/out.png"):
            member = tarfile.TarInfo(name)
            member.size = len(pixels.getvalue())
            tar.addfile(member, io.BytesIO(pixels.getvalue()))
    part = read_archive(tmp_path / "evil.tar", None, tmp_path / "cache", MEBIBYTE)
    assert part.class_names == ("a", "b")
    assert {path.name for path in tmp_path.iterdir()} == {"evil.tar", "cache"}
    assert not list(tmp_path.parent.rglob("out.png"))


def test_an_archive_too_large_for_memory_is_refused(archive, tmp_path):
    with pytest.raises(UserError, match=r"unpack it to a folder, or raise loading.resident_gib"):
        read_archive(archive, None, tmp_path, max_bytes=100)


def test_an_empty_archive_is_refused(tmp_path):
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(UserError, match="holds no images"):
        read_archive(tmp_path / "empty.tar", None, tmp_path, MEBIBYTE)


def test_parts_are_folders_or_archives(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test.tar.gz").touch()
    assert find_part(tmp_path, "train") == tmp_path / "train"
    assert find_part(tmp_path, "test") == tmp_path / "test.tar.gz"
    assert find_part(tmp_path, "val") is None
