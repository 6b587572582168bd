"""Which items of a shared folder are done: lines of JSON that every process appends to a file of its own."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from kd_mil.core.atomic import atomic_path

MOST_FILES = 16
"""More of them, of processes that are gone, are made into one."""
QUIET_SECONDS = 3600.0
"""A file that was not written to for this long belongs to a process that is gone, or hardly writes."""

Entry = dict[str, Any]


class Ledger:
    """The last entry of each item; one pass over few files tells of any number of items.

    Processes on several machines may write at once: each appends to its own file, and no lock is needed. A line that
    is not whole, as of a killed process, is passed over, so an item may be done without an entry: entries spare work,
    and the absence of one proves nothing.

    Args:
        folder: where the files lie; made at the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = folder / f"{uuid4().hex}.jsonl"
        self._entries: dict[str, Entry] = {}
        self._read_up_to: dict[str, int] = {}
        self.refresh()
        self._tidy()

    def get(self, item: str) -> Entry | None:
        """The last entry of an item, as far as was read."""
        return self._entries.get(item)

    def refresh(self) -> bool:
        """Read what was added since the last time, by this process or others; whether there was anything."""
        news = False
        for path, size in self._files():
            start = self._read_up_to.get(path.name, 0)
            if size > start:
                with suppress(OSError):  # made into one with others just now
                    news |= self._read(path, start)
        return news

    def add(self, item: str, entry: Entry) -> None:
        """Append an entry: plain values, as JSON has them.

        Raises:
            OSError: the folder cannot be written.
        """
        line = json.dumps({"item": item, "at": time.time(), **entry}, separators=(",", ":"))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._own.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._take(line)
        self._read_up_to[self._own.name] = self._own.stat().st_size

    def _files(self) -> list[tuple[Path, int]]:
        try:
            with os.scandir(self.folder) as found:
                return [(Path(one.path), one.stat().st_size) for one in found if one.name.endswith(".jsonl")]
        except OSError:  # no such folder, or a file that has just been removed
            return []

    def _read(self, path: Path, start: int) -> bool:
        with path.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")  # the rest is being written
        self._read_up_to[path.name] = start + len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(line)
        return bool(whole)

    def _take(self, line: str | bytes) -> None:
        with suppress(ValueError, TypeError, LookupError, RecursionError):  # damaged: as if it were not there
            entry = json.loads(line)
            item, at = str(entry["item"]), float(entry["at"])
            if at >= self._entries.get(item, {"at": -1.0})["at"]:
                self._entries[item] = entry

    def _tidy(self) -> None:
        """Make many files of processes that are gone into one; a line lost to a race is an entry less."""
        now = time.time()
        with suppress(OSError):
            quiet = [path for path, _ in self._files() if now - path.stat().st_mtime > QUIET_SECONDS]
            if len(quiet) <= MOST_FILES:
                return
            lines = [json.dumps(entry, separators=(",", ":")) + "\n" for entry in self._entries.values()]
            merged = self.folder / f"{uuid4().hex}.jsonl"
            with atomic_path(merged) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
            self._read_up_to[merged.name] = merged.stat().st_size
            for path in quiet:
                path.unlink(missing_ok=True)
