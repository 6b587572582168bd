"""Whether two slide files hold the same: cheap samples of their content, whatever their names and times."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kd_mil.core.errors import UserError
from kd_mil.core.hashing import content_sample, digest, stamp

SLIDEDAT = "Slidedat.ini"
"""The index of a MIRAX slide, in the folder beside its `.mrxs` file; it holds the slide's own number."""
NAMED_AT_MOST = 3
"""Pairs named in a warning."""


def slide_identity(path: Path) -> dict[str, Any]:
    """`size` in bytes, `modified` (ns since 1970) and `content`, which alone tells two slides apart.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return {"size": status.st_size, "modified": status.st_mtime_ns, "content": slide_sample(path)}


def slide_stamp(path: Path) -> list[Any]:
    """Path, size and time of change of a slide, of MIRAX with its index: as `slide_identity`, but no file is opened.

    Raises:
        OSError: no such file.
    """
    index = path.with_suffix("") / SLIDEDAT
    files = [path, index] if path.suffix.lower() == ".mrxs" and index.is_file() else [path]
    return [fact for file in files for fact in stamp(file)]


def slide_sample(path: Path) -> str:
    """Hex digits that stand for the content of a slide, of MIRAX with its folder; see `content_sample`."""
    folder = path.with_suffix("")
    if path.suffix.lower() != ".mrxs" or not folder.is_dir():
        return content_sample(path)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    index = content_sample(folder / SLIDEDAT) if SLIDEDAT in sizes else ""
    return digest([content_sample(path), index, sizes])


def of_equal_content(paths: Sequence[Path]) -> list[list[int]]:
    """Positions of files that hold the same, in groups of two and more; only files of equal size are looked into.

    Empty files, and those that cannot be read, are nobody's twin.
    """
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    samples: defaultdict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        with suppress(OSError):
            sizes[path.stat().st_size].append(index)
    for index in (index for size, group in sizes.items() if size and len(group) > 1 for index in group):
        with suppress(OSError):
            samples[slide_sample(paths[index])].append(index)
    return [group for group in samples.values() if len(group) > 1]


def check_twins(ids: Sequence[str], paths: Sequence[Path], splits: Sequence[str | None], source: str) -> None:
    """Warn of files of equal content under several ids: what is trained on would be tested on, too.

    Raises:
        UserError: they stand in several parts.
    """
    groups = of_equal_content(paths)
    for group in groups:
        parts = {split for split in (splits[index] for index in group) if split is not None}
        if len(parts) > 1:
            raise UserError(
                f"{source}: {_named(group, ids, paths)}, in {' and '.join(sorted(parts))}: keep one of them"
            )
    _warn(groups, ids, paths, source)


def warn_of_twins(ids: Sequence[str], paths: Sequence[Path], contents: Sequence[str], source: str) -> None:
    """As `check_twins`, of files whose contents are known by their hashes, and without parts."""
    _warn(equal_ones(contents), ids, paths, source)


def equal_ones(contents: Sequence[str | None]) -> list[list[int]]:
    """Positions of equal hashes, in groups of two and more; None is nobody's twin."""
    by_content: defaultdict[str, list[int]] = defaultdict(list)
    for index, content in enumerate(contents):
        if content is not None:
            by_content[content].append(index)
    return [group for group in by_content.values() if len(group) > 1]


def _warn(groups: Sequence[Sequence[int]], ids: Sequence[str], paths: Sequence[Path], source: str) -> None:
    if groups:
        listed = "; ".join(_named(group, ids, paths) for group in groups[:NAMED_AT_MOST])
        more = f"; {len(groups) - NAMED_AT_MOST} more" if len(groups) > NAMED_AT_MOST else ""
        warnings.warn(f"{source}: {listed}{more}: keep one of them, or give them one case_id", stacklevel=3)


def _named(group: Sequence[int], ids: Sequence[str], paths: Sequence[Path]) -> str:
    names = " and ".join(repr(ids[index]) for index in group[:NAMED_AT_MOST])
    return f"{names} are the same file, {str(paths[group[0]])!r}, twice"
