"""Checks of data: which sets are found, and leaks, duplicates or mixed features that would invalidate results."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from kd_mil.core.errors import UserError, one_line
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.files.provenance import differences
from kd_mil.data.locations import Located, only_locating
from kd_mil.data.splits import PARTS
from kd_mil.diagnosis.finding import Finding

SHOWN = 5
LOOKED_AT = 64
"""Instances of a bag that are compared, beside their number."""


def folder_of(setup: Callable[[], Any]) -> Path | None:
    """Where a data set lies that looks for its folder before it reads anything; None where it is not there."""
    try:
        with only_locating():
            setup()
    except Located as found:
        return found.folder
    except UserError:
        return None
    return None


def split_findings(splits: BagSplits) -> list[Finding]:
    """Cases in more than one part, and bags with the same content."""
    found = [Finding("ok", "bags", ", ".join(f"{len(getattr(splits, part))} {part}" for part in PARTS))]
    return found + leakage(splits) + duplicates(splits)


def leakage(splits: BagSplits) -> list[Finding]:
    """Cases whose bags are in more than one part."""
    bags = splits.bags
    cases = bags.bag_ids if bags.case_ids is None else bags.case_ids
    parts_of: dict[str, set[str]] = defaultdict(set)
    for part in PARTS:
        for bag in getattr(splits, part).tolist():
            parts_of[cases[bag]].add(part)
    shared = [f"{case} ({', '.join(sorted(parts))})" for case, parts in parts_of.items() if len(parts) > 1]
    if shared:
        return [Finding("error", "case leakage", f"{len(shared)} cases in several parts: {some(shared)}")]
    if bags.case_ids in (None, bags.bag_ids):
        return [Finding("note", "case leakage", "the data name no cases: every bag counts as one")]
    return [Finding("ok", "case leakage", f"{len(parts_of)} cases, each in one part")]


def duplicates(splits: BagSplits) -> list[Finding]:
    """Bags of the same size whose first instances are equal: one slide under two names."""
    bags, groups = splits.bags, defaultdict(list)
    part_of = {bag: part for part in PARTS for bag in getattr(splits, part).tolist()}
    for bag in tqdm(sorted(part_of), desc="duplicates", unit="bag", disable=None, leave=False):
        groups[content_hash(bags, bag)].append(bag)
    found = []
    for same in groups.values():
        if len(same) > 1:
            across = len({part_of[bag] for bag in same}) > 1
            names = some([f"{bags.bag_ids[bag]} ({part_of[bag]})" for bag in same])
            found.append(Finding("error" if across else "warning", "duplicate bags", f"same content: {names}"))
    return found or [Finding("ok", "duplicate bags", "none")]


def content_hash(bags: Bags, bag: int) -> str:
    """Hash of the number of instances and of the first of them."""
    size, start = int(bags.sizes[bag]), int(bags.starts[bag])
    seen = bags.instances[torch.arange(start, start + min(size, LOOKED_AT), device=bags.device)]
    content = seen.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{size}".encode() + content).hexdigest()


def feature_findings(paths: Sequence[Path], index: FeatureIndex) -> list[Finding]:
    """Feature files that cannot be used, and those not made like the ones before them.

    New files are read through, and the index keeps what was found; known ones were, and are not opened. What files say
    of their making is compared with all that those before them said: another encoder, width, resolution.
    """
    if not paths:
        return [Finding("error", "features", "no feature files there")]
    with index:
        new = sum(facts is None for facts in index.known(paths))
        unusable, unlike, together = _compared(paths, index)
    found = [
        Finding("error", "features", f"{len(files)} of {len(paths)} files {what}: {some(files)}")
        for files, what in ((unusable, "cannot be used"), (unlike, "were not made like those before them"))
        if files
    ]
    names = ", ".join(f"{name} {value}" for name, value in together.items() if name != "transform")
    read = f"{len(paths)} files agree, {new} of them read through now, the others before: {names}"
    return found or [Finding("ok", "features", f"{read}; what a file does not say is not compared")]


def _compared(paths: Sequence[Path], index: FeatureIndex) -> tuple[list[str], list[str], dict[str, Any]]:
    """Files that cannot be used, files unlike those before them, and what all say together."""
    together: dict[str, Any] = {}
    unusable, unlike = [], []
    known = index.known(paths)
    progress = tqdm(paths, desc="reading features", unit="file", disable=None, leave=False)
    for path, facts in zip(progress, known, strict=True):
        try:
            source = (facts or index.inspect(path, None)[0]).source
        except Exception as error:  # whatever it is, the other files are looked at
            unusable.append(f"{path.name} ({one_line(error)})")
            continue
        if lines := differences(together, source):
            unlike.append(f"{path.name} ({'; '.join(lines)})")
        told = {name: value for name, value in source.items() if value is not None}
        together |= {name: value for name, value in told.items() if together.get(name) is None}
    return unusable, unlike, together


def some(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
