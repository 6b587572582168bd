"""Files that are whole or absent, and where results may go, found out before work begins."""

import multiprocessing
import os
import time

import pytest

from kd_mil.core.atomic import (
    ABANDONED_SECONDS,
    atomic_path,
    remove_all_unfinished,
    remove_unfinished,
    require_writable,
)
from kd_mil.core.errors import UserError
from kd_mil.core.machine.processes import process_space


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["file", "file/below/it", "dangling"])
def test_what_cannot_be_a_folder_is_named(tmp_path, out):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"out=.*{out}: '.*{out.split('/')[0]}' is no folder"):
        require_writable(tmp_path / out)


def write_for_ever(path, pipe):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        pipe.send(temporary.name)
        time.sleep(60)


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path, fork = tmp_path / "a[1].h5", multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=write_for_ever, args=(path, sender))
    process.start()
    name = receiver.recv()
    remove_unfinished(path)
    assert os.listdir(tmp_path) == [name]
    process.kill()
    process.join()
    remove_unfinished(tmp_path / "a1.h5")
    assert os.listdir(tmp_path) == [name], "of another file"
    remove_all_unfinished(tmp_path / "absent")
    remove_all_unfinished(tmp_path)
    assert not os.listdir(tmp_path)


def test_whatever_killed_writers_left_in_a_folder_is_removed(tmp_path):
    """Process 1 lives, and no process has the last number."""
    names = [f".{file}.{process_space()}-{pid}-0.part" for file in ("run.json", "a.png") for pid in (1, 2**22 + 1)]
    (tmp_path / "figures").mkdir()
    for name in [*names, "figures/" + names[3], ".hidden.part", "b.part"]:
        (tmp_path / name).touch()
    remove_all_unfinished(tmp_path, below=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"figures", names[0], names[2], ".hidden.part", "b.part"}


@pytest.mark.parametrize("name", [".a.h5.0123456789ab-1-01234567.part", ".a.h5.01234567.part"])
def test_what_another_machine_left_is_removed_when_it_is_old(tmp_path, name):
    part = tmp_path / name
    part.touch()
    remove_unfinished(tmp_path / "a.h5")
    assert part.exists()
    os.utime(part, (time.time() - ABANDONED_SECONDS - 10,) * 2)
    remove_unfinished(tmp_path / "a.h5")
    assert not part.exists()


@pytest.mark.parametrize("name", ["n" * 255, "ö" * 127, "short"])
def test_a_file_may_have_the_longest_name_there_is(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == [name]
