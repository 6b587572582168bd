"""The index of feature files: what was found in each, kept beside them, so that no known file is opened again.

A JSON line for each file, in one file that is replaced whole. SQLite would take single lines, but its write-ahead log
needs shared memory, which network drives do not have, and without it readers wait for writers; sets of features lie on
network drives. A replaced file is whole for every reader, and a lost race costs another reading, never a wrong fact.
"""

import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
from filelock import FileLock
from torch import Tensor

from kd_mil.core.atomic import atomic_path
from kd_mil.core.hashing import digest
from kd_mil.data.features.files.facts import FileFacts, facts_of, identity_of, inspect
from kd_mil.data.features.files.feature_file import FeatureFile

NAME = ".kd_mil_features.jsonl"
HEADER = {"kd_mil_feature_index": 3}
"""Its first line; the number is raised when facts change their meaning, and older files are made anew."""
SETTLED_NS = 2_000_000_000
"""A file changed within this time before it was read may change again without its time of change showing it."""
SAVE_SECONDS = 30.0
"""Between two saves of a long first reading, which resumes from there."""
LOCK_SECONDS = 60.0


class FeatureIndex:
    """Facts of feature files by path, size and time of change; within `with`, kept on the disk at the end.

    Several processes may use one index at once: each adds what it read to what is there.

    Args:
        folder: of the manifest; the index lies in it or, where it cannot be written, in `cache_dir`. Both are read.
        cache_dir: folder of caches.
    """

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.places = (self.folder / NAME, cache_dir / "features" / f"{digest(str(self.folder))}.jsonl")
        self._facts: dict[str, FileFacts] = {}
        self._news: set[str] = set()
        self._saved = time.monotonic()

    def __enter__(self) -> "FeatureIndex":
        for place in reversed(self.places):
            self._facts |= _read(place)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.save()

    def known(self, paths: Sequence[Path]) -> list[FileFacts | None]:
        """The facts of files that are as they were; None for others, and for those that cannot be looked at."""
        return [self._current(self._facts.get(self._key(path)), path) for path in paths]

    def inspect(self, path: Path, keep: torch.dtype | None) -> tuple[FileFacts, FeatureFile, Tensor]:
        """As `facts.inspect`; the facts become known, unless the file may be changing."""
        facts, file, features = inspect(path, keep)
        latest = max(facts.identity)  # times in ns are larger than any size
        if self._current(facts, path) is not None and time.time_ns() - latest > SETTLED_NS:
            self._facts[self._key(path)] = facts
            self._news.add(self._key(path))
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        return facts, file, features

    def remember_content(self, path: Path, settings: str, content: str) -> None:
        """Add the hash of a bag as these settings make it, where the file is known."""
        facts = self._facts.get(self._key(path))
        if facts is not None:
            facts.contents[settings] = content
            self._news.add(self._key(path))

    def save(self) -> None:
        """Add what is new to the index on the disk; a warning where it can be written nowhere."""
        self._saved = time.monotonic()
        if not self._news:
            return
        reasons = []
        for place in self.places:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{place}.lock", timeout=LOCK_SECONDS):
                    _write(place, _read(place) | {key: self._facts[key] for key in self._news})
            except (OSError, NotImplementedError) as error:  # a Timeout is an OSError
                reasons.append(f"{place} ({getattr(error, 'strerror', None) or error})")
                continue
            self._news.clear()
            return
        warnings.warn(
            f"what was found in feature files can be kept neither in {' nor in '.join(reasons)}: the next start reads "
            "them again; set paths.cache_dir=FOLDER",
            stacklevel=2,
        )

    def _key(self, path: Path) -> str:
        """The path from the folder of the manifest, or the whole one of a file elsewhere."""
        return os.path.abspath(path).removeprefix(f"{self.folder}{os.sep}")

    def _current(self, facts: FileFacts | None, path: Path) -> FileFacts | None:
        try:
            return facts if facts is not None and facts.identity == identity_of(path) else None
        except OSError:
            return None


def _read(place: Path) -> dict[str, FileFacts]:
    """The facts in an index by path; none, with a warning, of a damaged one."""
    try:
        first, *lines = place.read_text(encoding="utf-8").splitlines()
        if json.loads(first) != HEADER:
            return {}
        return {key: facts_of(values) for key, values in map(json.loads, lines)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(f"{place} cannot be read ({error}): feature files are read anew", stacklevel=2)
        return {}


def _write(place: Path, facts: dict[str, FileFacts]) -> None:
    lines = [json.dumps(HEADER), *(json.dumps([key, facts[key].plain()]) for key in sorted(facts))]
    with atomic_path(place) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
