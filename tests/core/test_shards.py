"""Parts of many items: all of them, each in one part, for ever in the same."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.core.shards import EVERYTHING, Shard, shard_of, with_number_of_shards


def test_every_name_is_in_one_part_and_parts_are_of_about_equal_size():
    names = [f"TCGA-{number:05}" for number in range(4000)]
    parts = [[name for name in names if Shard(index, 8).holds(name)] for index in range(8)]
    assert sorted(name for part in parts for name in part) == names
    assert all(420 < len(part) < 580 for part in parts), "a multinomial draw: 500 ± 4 standard deviations of 21"


def test_parts_never_change():
    """SHA-256 of the name, modulo the number of parts: by hand for three."""
    assert [int(Shard(1, 4).holds(name)) for name in ("a", "b", "c")] == [0, 1, 0]
    assert [int(Shard(2, 4).holds(name)) for name in ("a", "b", "c")] == [0, 0, 1]


@pytest.mark.parametrize(
    ("shard", "shards", "part"),
    [("3/32", None, Shard(3, 32)), (3, 32, Shard(3, 32)), (None, None, EVERYTHING), ("0/4", 4, Shard(0, 4))],
)
def test_a_part_is_named_in_two_ways(shard, shards, part):
    assert shard_of(shard, shards) == part


@pytest.mark.parametrize(
    ("shard", "shards", "words"),
    [
        (3, None, "or shard=0 shards=32"),
        (None, 4, "shard=null shards=4: a part is"),
        ("4/4", None, "the last one is shard=3/4"),
        ("0/0", None, "there is one part at least"),
        ("-1/4", None, "a part is"),
        ("0.5/4", None, "a part is"),
        ("1/4", 8, "two numbers of parts"),
        ("x", 4, "a part is"),
    ],
)
def test_a_wrong_part_is_one_line(shard, shards, words):
    with pytest.raises(UserError) as caught:
        shard_of(shard, shards)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ("shard=range(0,32)", "shards=32"),
        ("shard=range(0, 32)", "shards=32"),
        ("shard=range(4)", "shards=4"),
        ("shard=2,0,1", "shards=3"),
        ("shard=range(8,16)", None),
        ("shard=1,2", None),
        ("shard=3/4", None),
    ],
)
def test_a_sweep_over_all_parts_says_how_many_there_are(typed, added):
    arguments = ["-m", typed, "out=x"]
    assert with_number_of_shards(arguments) == arguments + ([added] if added else [])
    assert with_number_of_shards([*arguments, "shards=64"]) == [*arguments, "shards=64"]
