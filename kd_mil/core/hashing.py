"""What stands for a file's content, and short hashes of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch


def _identity(path: Path, dtype: torch.dtype) -> str:
    """Changes when the file does."""
    status = path.stat()
    facts = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{dtype}"
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def identity(path: Path) -> list[Any]:
    """Path, size and time of change of a file: together they stand for its content."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def digest(facts: Any) -> str:
    """Short hash of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """The first 16 digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
