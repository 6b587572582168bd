from collections import Counter

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags, BagSplits
from kd_mil.data.split_table import split_table
from kd_mil.data.splits import apply_split_file, check_splits, hold_out, split_around, stratified_folds


def make_splits(train=(0, 1), val=(2,), test=(3,), cases=None):
    bags = Bags(
        instances=torch.zeros(4, 2),
        sizes=torch.ones(4, dtype=torch.long),
        labels=torch.tensor([0, 1, 0, 1]),
        bag_ids=["a", "b", "c", "d"],
        case_ids=cases,
    )
    return BagSplits(bags, *(torch.tensor(part, dtype=torch.long) for part in (train, val, test)))


def test_folds_are_stratified_and_test_every_bag_once():
    labels = torch.tensor([0] * 49 + [1] * 51)
    tested = Counter()
    for fold in range(5):
        train, val, test = stratified_folds(labels, None, fold, 5, val_fraction=0.1, seed=0)
        assert [len(part) for part in (train, val, test)] == [70, 10, 20]
        assert int(labels[val].sum()) == 5
        assert int(labels[test].sum()) in (10, 11)
        assert sorted(torch.cat([train, val, test]).tolist()) == list(range(100))
        tested.update(test.tolist())
    assert tested == Counter(range(100))


def test_folds_keep_cases_whole():
    cases = [f"case{number % 30}" for number in range(100)]
    labels = torch.tensor([number % 30 % 3 for number in range(100)])
    for fold in range(3):
        parts = stratified_folds(labels, cases, fold, 3, val_fraction=0.2, seed=1)
        owners = [{cases[bag] for bag in part.tolist()} for part in parts]
        assert [len(own) for own in owners] == [14, 6, 10]
        assert not owners[0] & owners[1]
        assert not owners[0] & owners[2]
        assert not owners[1] & owners[2]
        assert {labels[bag].item() for bag in parts[1].tolist()} == {0, 1, 2}


def test_a_case_counts_by_its_highest_label():
    labels = torch.tensor([0, 1] * 4 + [0] * 4)
    cases = [name for name in "abcd" for _ in range(2)] + list("efgh")
    for fold in range(4):
        _, _, test = stratified_folds(labels, cases, fold, 4, val_fraction=0.25, seed=0)
        assert labels[test].tolist() == [0, 1, 0]


def test_folds_depend_on_the_seed_alone():
    labels = torch.arange(40) % 2
    first, again, other = (stratified_folds(labels, None, 0, 4, 0.2, seed)[2] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("fold", "num_folds", "message"), [(5, 5, "one of 0..4"), (-1, 5, "0..4"), (0, 1, "at least 2")]
)
def test_a_fold_that_does_not_exist_is_refused(fold, num_folds, message):
    with pytest.raises(UserError, match=message):
        stratified_folds(torch.arange(40) % 2, None, fold, num_folds, 0.1, 0)


def test_too_few_cases_of_a_class_are_refused():
    with pytest.raises(UserError, match=r"class 1 has 3 case\(s\), too few for num_folds=5"):
        stratified_folds(torch.tensor([0] * 20 + [1] * 3), None, 0, 5, 0.1, 0)
    with pytest.raises(UserError, match=r"class 1 has 1 case\(s\), too few for a held-out part"):
        hold_out(torch.tensor([0, 0, 0, 1, 1]), ["a", "b", "c", "d", "d"], torch.arange(5), 0.5, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2])
def test_a_held_out_fraction_leaves_both_parts_something(fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        hold_out(torch.arange(40) % 2, None, torch.arange(40), fraction, 0)


def test_hold_out_divides_the_given_bags_only():
    labels, bags = torch.arange(100) % 2, torch.arange(20, 60)
    left, held = hold_out(labels, None, bags, 0.25, 0)
    assert sorted(left.tolist() + held.tolist()) == bags.tolist()
    assert len(held) == 10
    assert int(labels[held].sum()) == 5


def test_split_around_given_test_bags_takes_the_share_of_all():
    labels, is_test = torch.arange(40) % 2, torch.arange(40) >= 20
    train, val, test = split_around(is_test, labels, None, 0.1, 0)
    assert test.tolist() == list(range(20, 40))
    assert [len(train), len(val)] == [16, 4]


def write(tmp_path, text):
    path = tmp_path / "split.csv"
    path.write_text(text)
    return path


def test_a_split_file_replaces_the_split(tmp_path):
    path = write(tmp_path, "bag_id,note,split\nd,x,train\nc,,train\n\nb,,val\na,,test\n")
    splits = apply_split_file(make_splits(), path)
    assert [part.tolist() for part in splits[1:]] == [[2, 3], [1], [0]]


def test_the_written_split_reads_back(tmp_path):
    splits = make_splits(train=(3, 0), val=(1,), test=(2,), cases=["p", "q", "r", "p"])
    rows = split_table(splits)
    assert list(rows[0].values())[:4] == ["a", "p", "negative", "train"]
    assert list(rows[0]) == ["bag_id", "case_id", "label", "split", "content"]
    assert [row["bag_id"] for row in rows] == ["a", "b", "c", "d"]
    text = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])
    again = apply_split_file(make_splits(), write(tmp_path, text))
    assert [part.tolist() for part in again[1:]] == [[0, 3], [1], [2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bag_id,split\na,train\nb,train\nc,val\n", "bag 'd' of the data set is not listed"),
        ("bag_id,split\na,train\nz,train\n", "line 3: the data set has no bag 'z'"),
        ("bag_id,split\na,train\na,train\n", "line 3: bag 'a' is listed twice"),
        ("bag_id,split\na,valid\n", "line 2: split 'valid' is none of train, val, test"),
        ("bag_id,part\na,train\n", "column 'split' is missing; it has 'bag_id', 'part'"),
        ("", "not readable as a CSV"),
    ],
)
def test_a_wrong_split_file_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        apply_split_file(make_splits(), write(tmp_path, text))


def test_a_missing_split_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.csv: not readable"):
        apply_split_file(make_splits(), tmp_path / "nowhere.csv")


def whole_splits(train=(0, 1, 6, 7), val=(2, 3), test=(4, 5), cases=None, labels=(0, 1) * 4):
    """Eight bags, every second one positive, both classes in each part."""
    bags = Bags(
        instances=torch.zeros(8, 2),
        sizes=torch.ones(8, dtype=torch.long),
        labels=torch.tensor(labels),
        bag_ids=list("abcdefgh"),
        case_ids=None if cases is None else list(cases),
    )
    return BagSplits(bags, *(torch.tensor(part, dtype=torch.long) for part in (train, val, test)))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (whole_splits(val=()), "the val part has no bags"),
        (whole_splits(val=(1, 2)), "bag 'b' is in both train and val"),
        (whole_splits(cases="pqrstqvw"), "case 'q' is in both train and test"),
        (whole_splits(train=(0, 6), val=(1, 2, 3)), "no training bag has class 'positive'"),
        (whole_splits(train=(0, 1, 3), val=(2, 6)), "no validation bag has class 'positive'"),
        (whole_splits(train=(0, 1, 4), test=(5, 7)), "no test bag has class 'negative'"),
        (whole_splits(labels=(1,) * 8), "every bag has class 'positive'"),
    ],
)
def test_a_split_that_deceives_is_refused(splits, message):
    with pytest.raises(UserError, match=message):
        check_splits(splits)


def test_a_sound_split_passes():
    check_splits(whole_splits(cases="ppqqrrpp"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.1, 0.98])
def test_either_part_holds_a_case_of_a_rare_class(fraction, seed):
    """100 negative and 4 positive cases: rounding alone would leave validation without a positive one."""
    labels = torch.tensor([0] * 100 + [1] * 4)
    left, held = hold_out(labels, None, torch.arange(104), fraction, seed)
    assert sorted(left.tolist() + held.tolist()) == list(range(104))
    assert all((labels[part] == label).any() for part in (left, held) for label in (0, 1))
    assert abs(len(held) - round(fraction * 104)) <= 1
    assert torch.equal(held, hold_out(labels, None, torch.arange(104), fraction, seed)[1])


def test_a_rare_class_is_in_every_part_of_every_fold():
    labels, cases = torch.tensor([0] * 200 + [1] * 10 + [2] * 8), [f"case{bag // 2}" for bag in range(218)]
    for fold in range(2):
        for part in stratified_folds(labels, cases, fold, 2, 0.05, seed=3):
            assert set(labels[part].tolist()) == {0, 1, 2}
