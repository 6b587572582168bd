"""A run whose data have changed is told what changed."""

import copy

import pandas as pd
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.changes import refuse_changed_data
from kd_mil.data.split_table import bag_content
from tests.support.tiny import TinyData, tiny_splits


def data_of(splits):
    data = TinyData(splits)
    data.setup()
    return data


@pytest.fixture
def recorded(tmp_path):
    data_of(tiny_splits()).write_split_file(tmp_path / "splits.csv")
    return tmp_path / "splits.csv"


def compare(recorded, splits):
    refuse_changed_data(recorded, pd.DataFrame(data_of(splits).split_rows()))


def test_the_same_data_pass_without_a_word(recorded, capsys):
    compare(recorded, tiny_splits())
    assert capsys.readouterr().out == ""


def with_bags(splits, **changes):
    bags = copy.copy(splits.bags)
    for name, value in changes.items():
        object.__setattr__(bags, name, value)
    return splits._replace(bags=bags)


def moved():
    splits = tiny_splits()
    return splits._replace(train=splits.train[2:], test=torch.cat([splits.test, splits.train[:2]]))


def relabelled():
    splits = tiny_splits()
    labels = splits.bags.labels.clone()
    labels[3] = 1 - labels[3]
    return with_bags(splits, labels=labels)


def renamed():
    splits = tiny_splits()
    return with_bags(splits, bag_ids=["other", *splits.bags.bag_ids[1:]])


def other_values(bag, last_only=False):
    splits = tiny_splits()
    instances = splits.bags.instances.clone()
    rows = splits.bags.instances_of(torch.tensor([bag]))
    instances[rows[-1:] if last_only else rows] += 1
    return with_bags(splits, instances=instances)


def other_instance_labels():
    splits = tiny_splits()
    return with_bags(splits, instance_labels=torch.full_like(splits.bags.instance_labels, -1))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (moved(), r"2 bags with another part \(bag0: train, now test, bag1: train, now test\)"),
        (relabelled(), r"1 bag with another label \(bag3: class1, now class0\)"),
        (renamed(), r"1 bag new \(other\); 1 bag gone \(bag0\)"),
        (other_values(5), r"1 bag with another content \(bag5\)"),
        (other_values(7, last_only=True), r"1 bag with another content \(bag7\)"),
        (other_instance_labels(), r"24 bags with another content \(bag0, bag1, bag2, and 21 more\)"),
    ],
)
def test_what_changed_is_named(recorded, splits, message):
    with pytest.raises(UserError, match=message):
        compare(recorded, splits)


def test_a_table_of_an_earlier_version_is_compared_as_far_as_it_goes(recorded, capsys):
    pd.read_csv(recorded, dtype=str).drop(columns="content").to_csv(recorded, index=False)
    compare(recorded, other_values(5))
    assert "whether the contents have changed cannot be told" in capsys.readouterr().out
    with pytest.raises(UserError, match="another part"):
        compare(recorded, moved())


@pytest.mark.parametrize("text", ["", "image_id,split\n", "bag_id,split\nbag0,tr"])
def test_a_damaged_table_is_one_line(recorded, text):
    recorded.write_text(text)
    with pytest.raises(UserError, match=r"splits.csv|no longer those"):
        compare(recorded, tiny_splits())


class InFiles:
    """Instances that stay in files, and which of them were read."""

    def __init__(self, instances):
        self.instances, self.shape, self.dtype, self.read = instances, tuple(instances.shape), instances.dtype, []

    def __getitem__(self, positions):
        self.read += positions.tolist()
        return self.instances[positions]


def test_of_files_two_instances_a_bag_are_read():
    splits = tiny_splits()
    lazy = with_bags(splits, instances=InFiles(splits.bags.instances)).bags
    changed = with_bags(splits, instances=InFiles(splits.bags.instances * 2)).bags
    assert bag_content(lazy, 4) == bag_content(lazy, 4) != bag_content(changed, 4)
    rows = splits.bags.instances_of(torch.tensor([4])).tolist()
    assert set(lazy.instances.read) == {rows[0], rows[-1]}
