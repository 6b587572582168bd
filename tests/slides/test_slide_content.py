"""Slides are known again by their content: moved, copied, changed, and of several files."""

import os
import shutil

import pytest

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import SAMPLE_BYTES
from kd_mil.slides.slide_content import SLIDEDAT, check_twins, of_equal_content, slide_identity, slide_sample

LARGE = SAMPLE_BYTES * 40


def test_a_moved_or_copied_slide_is_the_same_and_its_size_and_time_are_known(tmp_path):
    path, copy = tmp_path / "a.svs", tmp_path / "b" / "c.svs"
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(0, 5_000_000_000))
    before = slide_identity(path)
    assert (before["size"], before["modified"]) == (LARGE, 5_000_000_000)
    copy.parent.mkdir()
    shutil.copyfile(path, copy)
    assert slide_identity(copy)["content"] == before["content"]


@pytest.mark.parametrize("size", [1, SAMPLE_BYTES, LARGE])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_other_pixels_are_another_slide_though_size_and_time_are_equal(tmp_path, size, where):
    path, content = tmp_path / "a.svs", bytearray(os.urandom(size))
    path.write_bytes(content)
    before = slide_sample(path)
    # Of the middle, the first byte of the eighth of sixteen samples.
    index = {"first": 0, "middle": 7 * max(0, size - SAMPLE_BYTES) // 15, "last": size - 1}[where]
    content[index] ^= 1
    path.write_bytes(content)
    assert slide_sample(path) != before


def test_of_a_mirax_slide_the_folder_counts(tmp_path):
    """The `.mrxs` files of a scanner are alike; the pixels lie in the folder beside."""
    for name, number in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.mrxs").write_bytes(b"the same")
        (tmp_path / name / SLIDEDAT).write_bytes(b"SLIDE_ID=" + number)
        (tmp_path / name / "Data0000.dat").write_bytes(b"pixels")
    paths = [tmp_path / "a.mrxs", tmp_path / "b.mrxs"]
    assert of_equal_content(paths) == []
    shutil.copyfile(tmp_path / "a" / SLIDEDAT, tmp_path / "b" / SLIDEDAT)
    assert of_equal_content(paths) == [[0, 1]]


def test_equal_files_are_found_and_empty_or_unreadable_ones_passed_over(tmp_path):
    for name, content in {"a": "x", "b": "y", "c": "x", "d": "", "e": "", "f": "xx"}.items():
        (tmp_path / name).write_text(content)
    assert of_equal_content([tmp_path / name for name in "abcdefg"]) == [[0, 2]]


def test_one_slide_under_two_ids_is_a_warning_and_refused_in_two_parts(tmp_path):
    (tmp_path / "a.svs").write_text("x")
    paths = [tmp_path / "a.svs"] * 2
    for splits in ([None, None], ["train", "train"], ["train", None]):
        with pytest.warns(UserWarning, match=r"list: 's' and 't' are the same file, '.*a\.svs', twice"):
            check_twins(["s", "t"], paths, splits, "list")
    with pytest.raises(UserError, match=r"'s' and 't' are the same file.*, in test and train"):
        check_twins(["s", "t"], paths, ["train", "test"], "list")
