"""Copies of slides on a quick disk: the next slide is fetched from a slow one while the present one is encoded."""

import os
import shutil
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from kd_mil.core.checks import above
from kd_mil.core.errors import UserError
from kd_mil.core.machine.processes import is_dead, process_space
from kd_mil.core.object_stores import download
from kd_mil.slides.dicom_series import DICOM_SUFFIX
from kd_mil.slides.remote_slides import refuse_several_files
from kd_mil.slides.slide_list import SlideEntry

GIBIBYTE = 1024**3
SEVERAL_FILES = (".vms", ".vmu")
"""Suffixes of slides whose other files have names of their own: read where they are."""


class SlideCache:
    """Copies of the slides in hand, never more bytes at once than allowed; each is removed when its slide is done.

    A slide that finds no room is read where it is: to wait for room could be to wait for a slide that is itself waiting
    to be encoded. Room for three of the largest slides is enough for every one to be copied, unless their tiles are so
    few that workers read several slides ahead. A slide of an object store cannot be read there: it gets its room before
    it is planned (`admits`), or has to come back when those in hand are done.

    Args:
        folder: where the copies go, in a folder of this process; those of processes that were killed are removed.
        gib: bytes that they may take at once, in GiB, of this process.

    Raises:
        UserError: a bound that is not above 0, or a folder that cannot be made.
    """

    def __init__(self, folder: Path, gib: float) -> None:
        above("cache_gib", gib)
        self.most, self.held = round(gib * GIBIBYTE), 0
        self.largest = 0
        """Bytes of the largest slide that found no room."""
        self.uncopied = 0
        """Slides that were read where they are."""
        self.folder = folder / f"{process_space()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cache={folder} cannot be written ({error.strerror}): choose another folder") from error
        for other in folder.iterdir():
            _remove_abandoned(other)

    def __enter__(self) -> "SlideCache":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.uncopied:
            warnings.warn(
                f"{self.uncopied} slides were read where they are, not from cache={self.folder.parent}: there was no "
                f"room, or they are of a format that is not copied; the largest has {self.largest / GIBIBYTE:.1f} GiB, "
                "and cache_gib should be three times that",
                stacklevel=2,
            )

    def admits(self, entry: SlideEntry) -> bool:
        """Whether a slide may be fetched now; one of an object store then has its room.

        Raises:
            UserError: a slide of an object store that has no room although no other is in hand, or of several files.
        """
        if entry.remote is None:
            return True
        refuse_several_files(entry.remote)
        if self._reserve(entry.slide_id, entry.remote.size):
            return True
        if self._sizes:
            return False
        raise UserError(
            f"{entry.place} has {entry.remote.size / GIBIBYTE:.1f} GiB: no room in cache={self.folder.parent}, by "
            f"cache_gib={self.most / GIBIBYTE:g} or on its disk"
        )

    def fetch(self, entry: SlideEntry) -> Path:
        """Copy a slide, and say where it is to be read: in the cache or, where there is no room, where it is.

        Raises:
            OSError: it cannot be read.
            UserError: an object store does not give it.
        """
        if entry.remote is not None:
            inside = self.folder / entry.slide_id / entry.path.name
            download(entry.remote, inside)
            return inside
        files = slide_parts(entry.path)
        size = sum(file.stat().st_size for file in files)
        if not files or not self._reserve(entry.slide_id, size):
            self.uncopied, self.largest = self.uncopied + 1, max(self.largest, size)
            return entry.path
        inside = self.folder / entry.slide_id
        try:
            for file in files:
                copy = inside / file.relative_to(entry.path.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        except BaseException:
            self.release(entry.slide_id)
            raise
        return inside / entry.path.name

    def release(self, slide_id: str) -> None:
        """Remove the copy of a slide, if there is one."""
        with self._lock:
            size = self._sizes.pop(slide_id, None)
        if size is None:
            return
        shutil.rmtree(self.folder / slide_id, ignore_errors=True)
        with self._lock:
            self.held -= size

    def _reserve(self, slide_id: str, size: int) -> bool:
        with self._lock:
            if self.held + size > self.most or size > shutil.disk_usage(self.folder).free:
                return False
            self.held += size
            self._sizes[slide_id] = size
            return True


def slide_parts(path: Path) -> list[Path]:
    """All files of a slide: of MIRAX with its folder, of DICOM its neighbours; none where they cannot be told."""
    if path.suffix.lower() in SEVERAL_FILES:
        return []
    if path.suffix.lower() == DICOM_SUFFIX:
        return sorted(file for file in path.parent.iterdir() if file.suffix.lower() == DICOM_SUFFIX)
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        return [path, *sorted(file for file in folder.rglob("*") if file.is_file())]
    return [path]


def _remove_abandoned(folder: Path) -> None:
    space, _, rest = folder.name.partition("-")
    pid = rest.partition("-")[0]
    if pid.isdecimal() and is_dead(space, int(pid)):
        with suppress(OSError):
            shutil.rmtree(folder)
