"""What stands for a file's content, and short hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20
SAMPLES, SAMPLE_BYTES = 16, 1 << 16
"""Places of a large file that `content_sample` reads, first and last included, and how much it reads there."""


def file_identity(path: Path) -> list[Any]:
    """Path, size and time of change of a file: together they stand for its content, without reading it."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def stamp(path: Path) -> list[Any]:
    """As `file_identity`, of the path as it is given: a link that leads elsewhere tells by size and time."""
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def file_digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file's content."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()[:16]


def content_sample(path: Path) -> str:
    """16 hex digits that stand for a file's content: of its size and of `SAMPLES` places, all of it up to 1 MiB.

    Unlike `file_identity` it stays the same when the file is moved or copied, and unlike `file_digest` it costs
    milliseconds for a file of gigabytes. A change that leaves the size and all of the places alone is not seen.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return sample_of(file, path.stat().st_size)


def sample_of(file: BinaryIO, size: int) -> str:
    """As `content_sample`, of an open file of so many bytes."""
    last = max(0, size - SAMPLE_BYTES)
    sha256 = hashlib.sha256(str(size).encode())
    for index in range(SAMPLES):
        file.seek(index * last // (SAMPLES - 1))
        sha256.update(file.read(SAMPLE_BYTES))
    return sha256.hexdigest()[:16]


def digest(facts: Any) -> str:
    """12 hex digits of the SHA-256 of plain values (those of JSON)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def part_of(name: str, parts: int) -> int:
    """Which of so many equal parts, from 0 on, a name belongs to: the same on every machine and in every version."""
    return int(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest(), 16) % parts
