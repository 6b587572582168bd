"""The ledger: the last word on each item, from any number of writers, whatever is damaged."""

import json
import multiprocessing
import os
import time

from kd_mil.core import ledger
from kd_mil.core.ledger import Ledger

FORK = multiprocessing.get_context("fork")


def test_the_last_entry_of_an_item_counts_whoever_wrote_it(tmp_path):
    first, second = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    first.add("a", {"tiles": 1})
    second.add("a", {"tiles": 2})
    first.add("b", {"tiles": 3})
    assert first.get("a")["tiles"] == 1, "not looked again yet"
    assert first.refresh()
    assert not first.refresh()
    assert (first.get("a")["tiles"], first.get("b")["tiles"]) == (2, 3)
    third = Ledger(tmp_path / "l")
    assert (third.get("a")["tiles"], third.get("b")["tiles"], third.get("c")) == (2, 3, None)


def test_a_line_being_written_is_read_when_it_is_whole_and_a_damaged_one_never(tmp_path):
    whole = json.dumps({"item": "a", "at": 1.0, "tiles": 5})
    path = tmp_path / "x.jsonl"
    path.write_text("no json\n[]\n{}\n" + json.dumps({"item": "b", "at": "soon"}) + "\n" + whole[:10])
    found = Ledger(tmp_path)
    assert found.get("a") is None
    with path.open("a") as file:
        file.write(whole[10:] + "\n")
    assert found.refresh()
    assert found.get("a")["tiles"] == 5
    assert found.get("b") is None


def write(folder, number):
    own = Ledger(folder)
    for item in range(100):
        own.add(f"{number}-{item}", {"tiles": item})


def test_several_processes_write_at_once(tmp_path):
    writers = [FORK.Process(target=write, args=(tmp_path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = Ledger(tmp_path)
    assert all(found.get(f"{number}-{item}")["tiles"] == item for number in range(3) for item in range(100))


def test_many_files_of_processes_that_are_gone_become_one(tmp_path):
    for number in range(ledger.MOST_FILES + 1):
        Ledger(tmp_path).add(f"s{number}", {"tiles": number})
    old = time.time() - 2 * ledger.QUIET_SECONDS
    for path in tmp_path.iterdir():
        os.utime(path, (old, old))
    living = Ledger(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    living.add("s0", {"tiles": -1})
    again = Ledger(tmp_path)
    assert [again.get(f"s{number}")["tiles"] for number in (0, 1, ledger.MOST_FILES)] == [-1, 1, ledger.MOST_FILES]
    assert not living.refresh()
