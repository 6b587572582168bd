"""Tables and feature files in object stores (s3://, gs://, ...): copied once into the cache, then read as local ones.

Training reads every feature many times, in pieces: over a network each piece would be a request. So files are copied
whole, and a later start copies only what has changed. fsspec knows the protocols.
"""

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.object_stores import (
    RemoteFile,
    described,
    download,
    is_remote,
    joined,
    looked_at_anew,
    one_line_each,
    place_of,
)
from kd_mil.core.tables import read_table
from kd_mil.data.features.files.arrays import SUFFIXES

TABLE_SUFFIXES = (".csv", ".tsv", ".json")
THREADS = 16
"""Copies at a time: object stores are slow one by one, not together."""


class RemoteFiles:
    """Copies of files of object stores in a folder, each as its store has it.

    Args:
        cache: folder of the copies; it grows up to the size of what is asked for.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def here(self, name: str | Path | None) -> str | None:
        """The copy of a table or folder named by a URL; any other name as it is."""
        if not is_remote(name):
            return None if name is None else str(name)
        url = str(name)
        is_table = PurePosixPath(url).suffix.lower() in TABLE_SUFFIXES
        return str(self.files([url])[0] if is_table else self.folder(url))

    def with_features(self, name: str | Path) -> str:
        """As `here`; of a table the feature files that it names are copied beside it, too."""
        local = str(self.here(name))
        if is_remote(name) and not Path(local).is_dir():
            table, folder = read_table(local, ()), str(name).rpartition("/")[0]
            self.files([joined(folder, cell) for cell in table.get("feature_path", []) if cell])
        return local

    def folder(self, url: str) -> Path:
        """A copy of a folder's tables and feature files; of CLAM's two kinds of files `h5_files` alone.

        Raises:
            UserError: it is not there, or holds no such file.
        """
        wanted = (*SUFFIXES, *TABLE_SUFFIXES)
        names = [name for name in self._listed(url) if PurePosixPath(name).suffix.lower() in wanted]
        if any("/h5_files/" in name for name in names):
            names = [name for name in names if "/pt_files/" not in name]
        if not names:
            raise UserError(f"{url}: no tables and no feature files there")
        self.files(names)
        return self._place(url)

    def files(self, urls: Sequence[str]) -> list[Path]:
        """Copies of files in the order of their URLs; those that are as they were are not copied again.

        Raises:
            UserError: a file that is not there or may not be read, a protocol whose library is missing, or a disk
                without room for the copies.
        """
        places = [self._place(url) for url in urls]
        if not places:
            return []
        found = described(urls)
        for file in found.values():
            if not file.version:
                raise UserError(f"{file.url}: no such file or folder")
        stale = [file for file in found.values() if not self._is_current(file)]
        self._require_room(file.size for file in stale)
        with ThreadPoolExecutor(THREADS) as threads:
            copies = threads.map(self._copy, stale)
            for _ in tqdm(copies, total=len(stale), desc="copying", unit="file", disable=None, leave=False):
                pass
        return places

    def _listed(self, url: str) -> list[str]:
        with one_line_each(url):
            system = looked_at_anew(url)
            return [system.unstrip_protocol(name) for name in system.find(url)]

    def _place(self, url: str) -> Path:
        return place_of(url, self.cache)

    def _note(self, url: str) -> Path:
        place = self._place(url)
        return place.with_name(f".{place.name}.version")

    def _is_current(self, file: RemoteFile) -> bool:
        note = self._note(file.url)
        return self._place(file.url).is_file() and note.is_file() and note.read_text() == file.version

    def _copy(self, file: RemoteFile) -> None:
        download(file, self._place(file.url))
        with atomic_path(self._note(file.url)) as temporary:
            temporary.write_text(file.version)

    def _require_room(self, sizes: Iterable[int]) -> None:
        needed = sum(sizes)
        self.cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache).free
        if needed > free:
            raise UserError(
                f"copies of the features need {needed / 1e9:.1f} GB in {str(self.cache)!r}, which has {free / 1e9:.1f} "
                "GB: set paths.cache_dir=FOLDER"
            )
