"""A part of many items for one of several processes, by a stable hash of their names."""

import re
from dataclasses import dataclass

from kd_mil.core.checks import shown
from kd_mil.core.errors import UserError
from kd_mil.core.hashing import part_of


@dataclass(frozen=True)
class Shard:
    """One of `total` parts of about equal size; an item stays in its part when others come or go."""

    index: int
    """From 0 on."""
    total: int

    def holds(self, name: str) -> bool:
        """Whether an item belongs to this part."""
        return part_of(name, self.total) == self.index


EVERYTHING = Shard(0, 1)


def shard_of(shard: str | int | None, shards: int | None) -> Shard:
    """The part that the settings `shard` and `shards` name: `shard=3/32`, or `shard=3 shards=32`; without any, all.

    Raises:
        UserError: an index without a total, or no such part.
    """
    if shard is None and shards is None:
        return EVERYTHING
    index, slash, total = str(shard).partition("/")
    total = total if slash else str(shards)
    asked = f"shard={shown(shard)}" + ("" if shards is None else f" shards={shards}")
    if slash and shards not in (None, int(total) if total.isdecimal() else None):
        raise UserError(f"{asked}: two numbers of parts; give shard=0/32, or shard=0 shards=32")
    if shard is None or not (index.isdecimal() and total.isdecimal()):
        raise UserError(f"{asked}: a part is shard=0/32 (the first of 32), or shard=0 shards=32")
    if int(total) == 0:
        raise UserError(f"{asked}: there is one part at least, shard=0/1")
    if not int(index) < int(total):
        raise UserError(f"{asked}: parts are counted from 0 on, the last one is shard={int(total) - 1}/{total}")
    return Shard(int(index), int(total))


def with_number_of_shards(arguments: list[str]) -> list[str]:
    """A command line with `shards=N` where it sweeps over all parts, as `-m shard=range(0,32)` or `shard=0,1,2,3`."""
    for text in arguments:
        every = re.fullmatch(r"shard=(?:range\((?:0,)?(\d+)\)|(\d+(?:,\d+)+))", text.replace(" ", ""))
        if every is not None and not any(other.startswith("shards=") for other in arguments):
            indices = range(int(every[1])) if every[1] else sorted(map(int, every[2].split(",")))
            if list(indices) == list(range(len(indices))):
                return [*arguments, f"shards={len(indices)}"]
    return arguments
