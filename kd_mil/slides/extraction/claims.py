"""Claims of processes that share an output folder: one small file for each piece of work in progress."""

import contextlib
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from kd_mil.core.atomic import remove_all_unfinished, unfinished_path, write_new
from kd_mil.core.errors import UserError
from kd_mil.core.machine.processes import is_dead, process_space

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""A claim that was not renewed for this long is void; clocks of several machines may differ by less."""


class Claims:
    """Claims on names, held by this process until they are released; used as a context, which renews them.

    A claim is a file made exclusively, whose time a thread renews for as long as the work gets on (`progressed`): a
    process that hangs, in a read of a drive that never answers say, loses its names though its threads still run. A
    claim is void when its process is known to be gone, or when it is no longer renewed. Two processes that find the
    same void claim in the same instant may both get the name, and so may one whose drive could not be reached for
    `STALE_SECONDS`: work done under a claim must survive being done twice.

    Args:
        folder: where the files lie; made if need be, and removed in the end where it is empty.
        patience: seconds without progress after which claims are no longer renewed.
    """

    def __init__(self, folder: Path, patience: float = math.inf) -> None:
        self.folder, self.patience = folder, patience
        self._moved = time.monotonic()
        self._token = uuid4().hex
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> "Claims":
        self.folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._renew, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):  # others still work here
            remove_all_unfinished(self.folder)
            for left in self.folder.glob("*.claim"):  # of processes killed between their last write and the release
                self._discard_void(left.name.removesuffix(".claim"))
            self.folder.rmdir()

    def progressed(self) -> None:
        """Say that the work got on: the names in hand stay ours for another `patience`."""
        self._moved = time.monotonic()

    def take(self, name: str) -> bool:
        """Claim a name; False where a living process holds it.

        Raises:
            UserError: the folder cannot be read or written.
        """
        if name in self._held:
            return True
        try:
            if not self._create(name) and not (self._discard_void(name) and self._create(name)):
                return False
        except OSError as error:
            raise UserError(f"{self.folder} cannot be read or written ({error})") from error
        with self._lock:
            self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Give a held name back; a claim that somebody else made in the meantime stays."""
        with self._lock:
            if name not in self._held:
                return
            self._held.discard(name)
            with contextlib.suppress(OSError):  # it then goes stale
                if self._is_ours(name):
                    self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.claim"

    def _create(self, name: str) -> bool:
        content = {"space": process_space(), "pid": os.getpid(), "token": self._token}
        try:
            return write_new(self._path(name), json.dumps(content))
        except FileNotFoundError:  # another process left just now, and tidied the folder away
            return False

    def _discard_void(self, name: str) -> bool:
        """Remove a void claim; True where there is none any more."""
        path = self._path(name)
        found = _read(path)
        if found is None:
            return True
        if not _is_void(path, found):
            return False
        aside = unfinished_path(path)
        try:
            os.rename(path, aside)
        except FileNotFoundError:  # another process was faster
            return True
        mistaken = _read(aside) != found  # it was faster, and made a new claim
        if mistaken:
            os.rename(aside, path)
        else:
            aside.unlink(missing_ok=True)
        return not mistaken

    def _is_ours(self, name: str) -> bool:
        found = _read(self._path(name))
        return found is not None and found.get("token") == self._token

    def _renew(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            if time.monotonic() - self._moved > self.patience:
                continue
            with self._lock:
                for name in self._held:
                    with contextlib.suppress(OSError):  # a network drive that is away comes back
                        if self._is_ours(name):
                            os.utime(self._path(name))


def _read(path: Path) -> dict[str, Any] | None:
    """Content of a claim, {} while it is being written or where it is none of ours; None where there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_void(path: Path, claim: dict[str, Any]) -> bool:
    if is_dead(claim.get("space"), claim.get("pid")):
        return True
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True
