"""Claims: one process holds a name, dead ones hold none, and nothing is left behind."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from kd_mil.core.errors import UserError
from kd_mil.core.machine import processes
from kd_mil.core.machine.processes import process_space
from kd_mil.slides.extraction import claims
from kd_mil.slides.extraction.claims import Claims

FORK = multiprocessing.get_context("fork")


def test_a_name_is_held_by_one(tmp_path):
    with Claims(tmp_path / "c") as first, Claims(tmp_path / "c") as second:
        assert first.take("a")
        assert first.take("a"), "it holds it already"
        assert not second.take("a")
        assert second.take("b")
        first.release("a")
        assert second.take("a")
    assert not (tmp_path / "c").exists()


def hold(folder, pipe):
    with Claims(folder) as own:
        pipe.send(own.take("a"))
        time.sleep(60)


def test_a_killed_process_holds_nothing(tmp_path):
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=hold, args=(tmp_path, sender))
    process.start()
    assert receiver.recv()
    with Claims(tmp_path) as own:
        assert not own.take("a")
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert own.take("a")


@pytest.mark.parametrize(("age", "taken"), [(10, False), (100, False), (140, True)])
def test_a_claim_of_another_machine_is_void_when_it_is_not_renewed_for_two_minutes(tmp_path, age, taken):
    path = tmp_path / "a.claim"
    path.write_text(json.dumps({"space": "of another one", "pid": os.getpid(), "token": "x"}))
    os.utime(path, (time.time() - age,) * 2)
    with Claims(tmp_path) as own:
        assert own.take("a") is taken
    assert path.exists() is not taken, "a claim of somebody else stays"


def test_claims_in_hand_are_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    with Claims(tmp_path) as own:
        own.take("a")
        os.utime(tmp_path / "a.claim", (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / "a.claim").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def take_all(folder, names, start, results):
    start.wait()
    with Claims(folder) as own:
        results.put([name for name in names if own.take(name)])
        time.sleep(0.5)


def test_processes_that_start_together_share_without_overlap(tmp_path):
    names = [str(number) for number in range(200)]
    start, results = FORK.Event(), FORK.Queue()
    workers = [FORK.Process(target=take_all, args=(tmp_path, names, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    taken = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(name for own in taken for name in own) == sorted(names)


def test_a_void_claim_is_taken_by_one(tmp_path):
    """Its holder is dead; of three that find it, one gets it."""
    process = FORK.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    dead = json.dumps({"space": process_space(), "pid": process.pid, "token": "x"})
    (tmp_path / "a.claim").write_text(dead)
    with Claims(tmp_path) as one, Claims(tmp_path) as two, Claims(tmp_path) as three:
        assert [claim.take("a") for claim in (one, two, three)].count(True) == 1


def test_a_claim_taken_by_mistake_is_given_back(tmp_path, monkeypatch):
    """Both find the same dead claim; the faster one puts its own in the place before the slower one's hand is there."""
    path = tmp_path / "a.claim"
    path.write_text(json.dumps({"space": "gone", "pid": 1, "token": "dead"}))
    os.utime(path, (0, 0))
    with Claims(tmp_path) as faster, Claims(tmp_path) as slower:
        rename, moves = os.rename, []

        def rename_after_the_other(source, target):
            moves.append((source, target))
            if len(moves) == 1:
                assert faster.take("a")
            rename(source, target)

        monkeypatch.setattr(os, "rename", rename_after_the_other)
        assert not slower.take("a")
        assert len(moves) == 3, "the slower one moves it aside, the faster one did before, and it comes back"
        assert moves[2] == moves[0][::-1]
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert [found.name for found in tmp_path.iterdir()] == ["a.claim"]
        assert not slower.take("a"), "it is the faster one's still"


@pytest.mark.parametrize("half_done", ["written", "moved aside"])
def test_what_a_process_killed_within_a_claim_left_is_tidied_away(tmp_path, half_done):
    process = multiprocessing.Process(target=write_half_a_claim, args=(tmp_path / "c", half_done))
    process.start()
    process.join()
    assert len(list((tmp_path / "c").iterdir())) == 1, "the premise"
    with Claims(tmp_path / "c") as ours:
        assert ours.take("a")
    assert not (tmp_path / "c").exists()


def test_what_a_process_killed_before_its_release_left_is_tidied_away(tmp_path):
    """Its work was written, so nobody takes that name again."""
    folder = tmp_path / "c"
    folder.mkdir()
    gone = {"space": process_space(), "pid": 2**22 + 1, "token": "x"}
    (folder / "slide.1.claim").write_text(json.dumps(gone))
    with Claims(folder) as ours:
        assert ours.take("b")
    assert not folder.exists()


def test_claims_of_living_processes_are_left(tmp_path):
    with Claims(tmp_path / "c") as first:
        assert first.take("a")
        with Claims(tmp_path / "c") as second:
            assert second.take("b")
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["a.claim"]


def write_half_a_claim(folder, half_done):
    folder.mkdir()
    (folder / "a.claim").write_text(json.dumps({"space": process_space(), "pid": 2**22 + 1, "token": "x"}))
    if half_done == "moved aside":
        rename = os.rename
        os.rename = lambda *names: (rename(*names), os.kill(os.getpid(), signal.SIGKILL))
        Claims(folder).take("a")
    (folder / "a.claim").unlink()
    os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    Claims(folder).take("a")


@pytest.mark.parametrize(
    "content", ["", "7", "[]", "{}", '{"space": 1}', '{"pid": "x"}', '{"space": "%s", "pid": 1e300}']
)
def test_a_claim_that_says_nothing_is_void_by_its_age_alone(tmp_path, content):
    path = tmp_path / "a.claim"
    path.write_text(content.replace("%s", process_space()))
    with Claims(tmp_path) as claims_:
        assert not claims_.take("a")
        os.utime(path, (0, 0))
        assert claims_.take("a")


def test_a_container_with_other_process_ids_is_not_taken_for_dead(tmp_path, monkeypatch):
    """Same host, same boot, another namespace of ids: the other one's process cannot be looked up here."""
    process = FORK.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    here = process_space()
    (tmp_path / "a.claim").write_text(json.dumps({"space": here, "pid": process.pid, "token": "x"}))
    processes.process_space.cache_clear()
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[another]")
    try:
        assert process_space() != here
        with Claims(tmp_path) as container:
            assert not container.take("a")
    finally:
        processes.process_space.cache_clear()


def hold_on_a_bad_drive(folder, pipe):
    """Holds a claim whose first renewals fail, as on a network drive that is away; then says how it went."""
    claims.HEARTBEAT_SECONDS, failures, utime = 0.02, iter(range(3)), os.utime

    def away_at_first(path, *times):
        if next(failures, None) is not None:
            raise OSError(116, "Stale file handle")
        utime(path, *times)

    os.utime = away_at_first
    with Claims(folder) as holder:
        pipe.send(holder.take("a"))
        pipe.recv()


def test_the_heartbeat_survives_a_drive_that_is_away(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold_on_a_bad_drive, args=(tmp_path, there))
    process.start()
    assert here.recv()
    path = tmp_path / "a.claim"
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 0:
        assert time.monotonic() < deadline, "nobody renews it"
        time.sleep(0.01)
    with Claims(tmp_path) as other:
        assert not other.take("a")
        here.send("done")
        process.join()
        assert process.exitcode == 0
        assert other.take("a")


def hold_while_taken_over(folder, pipe):
    with Claims(folder) as holder:
        pipe.send(holder.take("a"))
        pipe.recv()
        holder.release("a")
        pipe.send("released")


def test_a_claim_that_somebody_else_took_over_is_neither_renewed_nor_removed(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold_while_taken_over, args=(tmp_path, there))
    process.start()
    assert here.recv()
    path = tmp_path / "a.claim"
    os.utime(path, (0, 0))  # as if its drive had been away for long
    with Claims(tmp_path) as other:
        assert other.take("a")
        here.send("release it")
        assert here.recv() == "released"
        process.join()
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path):
    with Claims(tmp_path) as holder:
        (tmp_path / "a.claim").mkdir()
        with pytest.raises(UserError, match="cannot be read or written"):
            holder.take("a")


def hold_and_hang(folder, pipe):
    """Holds a claim and renews it, and gets on only when told to: its threads live, its work does not."""
    claims.HEARTBEAT_SECONDS = 0.02
    with Claims(folder, patience=0.3) as holder:
        pipe.send(holder.take("a"))
        while pipe.recv() == "get on":
            holder.progressed()
            pipe.send("did")


def test_a_process_that_hangs_loses_its_claims_and_one_that_gets_on_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "STALE_SECONDS", 1.0)
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold_and_hang, args=(tmp_path, there))
    process.start()
    assert here.recv()
    with Claims(tmp_path) as other:
        for _ in range(8):
            time.sleep(0.2)
            here.send("get on")
            assert here.recv() == "did"
            assert not other.take("a"), "longer than its patience and than a claim lives, but it gets on"
        deadline = time.monotonic() + 20
        while not other.take("a"):
            assert process.is_alive()
            assert time.monotonic() < deadline, "it hangs and keeps its claim"
            time.sleep(0.05)
        here.send("end")
        process.join()
        assert not Claims(tmp_path).take("a"), "the hung one's end leaves the new claim alone"


def leave_without_closing(folder):
    """Holds a claim, and ends: an error came before the context was left."""
    Claims(folder).__enter__().take("a")


def test_the_heartbeat_keeps_no_process_alive(tmp_path):
    process = FORK.Process(target=leave_without_closing, args=(tmp_path,))
    process.start()
    process.join(timeout=20)
    ended = process.exitcode
    process.kill()
    assert ended == 0
    with Claims(tmp_path) as other:
        assert other.take("a"), "its holder has ended"


def test_a_folder_that_another_process_tidies_away_is_made_again(tmp_path, monkeypatch):
    """The last of the others leaves between two calls of `take`, and takes the empty folder along."""
    folder, link = tmp_path / "c", os.link

    def too_late(*names):
        monkeypatch.setattr(os, "link", link)
        shutil.rmtree(folder)
        link(*names)

    monkeypatch.setattr(os, "link", too_late)
    with Claims(folder) as own:
        assert own.take("a")
        assert (folder / "a.claim").is_file()
