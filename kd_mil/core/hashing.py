"""What stands for a file's content, and short hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any

BLOCK = 1 << 20


def file_identity(path: Path) -> list[Any]:
    """Path, size and time of change of a file: together they stand for its content, without reading it."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def file_digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file's content."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()[:16]


def digest(facts: Any) -> str:
    """12 hex digits of the SHA-256 of plain values (those of JSON)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
