"""Files in object stores (s3://, gs://, ...) by fsspec, which knows the protocols: what is there, and copies of it."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError, one_line
from kd_mil.core.hashing import digest

PROTOCOL = re.compile(r"([A-Za-z][\w+.-]*)://")
VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "mtime", "updated", "created")
"""What file systems call the facts that change with a file's content."""
TIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "created")
BLOCK = 1 << 22


@dataclass(frozen=True)
class RemoteFile:
    """A file in an object store, as it was when it was listed."""

    url: str
    size: int
    """Bytes."""
    version: str
    """Changes with its content; empty where there is no such file."""
    modified: float | None
    """Seconds since 1970; None where the store does not say."""


def is_remote(name: str | Path | None) -> bool:
    """Whether a name is a URL such as `s3://bucket/folder`."""
    return name is not None and PROTOCOL.match(str(name)) is not None


def joined(folder: str, name: str) -> str:
    """The URL of a file named in a table, from the folder of the table; URLs and absolute paths stay."""
    return name if is_remote(name) or name.startswith("/") else f"{folder.rstrip('/')}/{normpath(name)}"


def place_of(url: str, folder: Path) -> Path:
    """Where below a folder the copy of a file or folder lies.

    Raises:
        UserError: a URL that leads upwards.
    """
    protocol, path = url.split("://", 1)
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        raise UserError(f"{url}: leave out ..")
    return folder.joinpath(protocol, *parts)


def file_system(url: str) -> Any:
    """The file system of a URL, with its credentials as its own library finds them."""
    import fsspec

    return fsspec.core.url_to_fs(url)[0]


def looked_at_anew(url: str) -> Any:
    """As `file_system`; what it remembers of the folder at the URL, and of those above, is forgotten.

    One file system serves a whole process, which in a notebook lives longer than what it once listed.
    """
    system = file_system(url)
    system.invalidate_cache(url)
    return system


@contextmanager
def one_line_each(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line: each has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file or folder") from error
    except (ImportError, ValueError) as error:  # fsspec: a protocol that it does not know, or without its library
        advice = "pip install 'kd-mil[remote]' brings s3:// and gs://"
        raise UserError(f"{url}: {one_line(error)}; {advice}") from error
    except Exception as error:
        raise UserError(f"{url}: {one_line(error)}") from error


def described(urls: Sequence[str]) -> dict[str, RemoteFile]:
    """What the stores say of each file; a folder of several is listed whole, a thousand files a request.

    Raises:
        UserError: a store that cannot be asked.
    """
    folders: dict[str, list[str]] = {}
    for url in urls:
        folders.setdefault(url.rpartition("/")[0], []).append(url)
    found: dict[str, RemoteFile] = {}
    for folder, members in folders.items():
        with one_line_each(members[0]):
            listed = _listed(looked_at_anew(folder), folder, members)
        for url in members:
            facts = listed.get(url.rpartition("/")[2])
            found[url] = RemoteFile(url, 0, "", None) if facts is None else remote_file(url, facts)
    return found


def _listed(system: Any, folder: str, members: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    try:
        found = [system.info(members[0])] if len(members) == 1 else system.ls(folder, detail=True)
    except FileNotFoundError:
        return {}
    return {PurePosixPath(one["name"]).name: one for one in found}


def remote_file(url: str, facts: Mapping[str, Any]) -> RemoteFile:
    """A file from what fsspec says of it."""
    version = digest([facts.get("size"), *(str(facts[key]) for key in VERSION_KEYS if key in facts)])
    return RemoteFile(url, facts.get("size") or 0, version, _time(facts))


def download(file: RemoteFile, place: Path) -> None:
    """Copy a file; it appears under its name when it is whole, with the time of change that its store says.

    Raises:
        UserError: it is not there, may not be read, or came in part.
    """
    with one_line_each(file.url), atomic_path(place) as temporary:
        with file_system(file.url).open(file.url, "rb") as there, temporary.open("wb") as here:
            shutil.copyfileobj(there, here, BLOCK)
        size = temporary.stat().st_size
        if file.size not in (0, size):
            raise UserError(f"{file.url}: {size} of {file.size} bytes came: was it changed? Start again")
        if file.modified is not None:  # else the copy looks as if it might still be changing
            os.utime(temporary, (file.modified, file.modified))


def fetched(file: RemoteFile, folder: Path) -> Path:
    """A copy of a small file below a folder, made anew unless size and time of change are those of the store.

    Raises:
        UserError: as of `download` and `place_of`.
    """
    place = place_of(file.url, folder)
    if place.is_file() and file.modified is not None:
        status = place.stat()
        if status.st_size == file.size and abs(status.st_mtime - file.modified) < 1e-3:
            return place
    download(file, place)
    return place


def _time(facts: Mapping[str, Any]) -> float | None:
    """Seconds since 1970 of the last change; None where the store does not say."""
    for key in TIME_KEYS:
        value = facts.get(key)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                continue
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
