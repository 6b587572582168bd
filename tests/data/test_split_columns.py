import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags
from kd_mil.data.split_columns import Folds, choose_parts
from kd_mil.data.splits import stratified_folds

NONE = [None] * 20


def bags(cases=None):
    return Bags(
        instances=torch.zeros(20, 1),
        sizes=torch.ones(20, dtype=torch.long),
        labels=torch.arange(20) % 2,
        bag_ids=[f"s{index}" for index in range(20)],
        case_ids=cases,
    )


def folds(fold=None):
    return Folds(fold, num_folds=5, val_fraction=0.1, seed=0)


def test_the_split_column_is_taken_as_it_is():
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    train, val, test = choose_parts(bags(), splits, NONE, folds())
    assert (train.tolist(), val.tolist(), test.tolist()) == (list(range(12)), [12, 13, 14, 15], [16, 17, 18, 19])


def test_without_validation_cases_are_held_out_of_training():
    cases = [f"p{index // 2 if index < 16 else index}" for index in range(20)]
    splits = ["train"] * 16 + ["test"] * 4
    train, val, test = choose_parts(bags(cases), splits, NONE, folds())
    assert test.tolist() == [16, 17, 18, 19]
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(16))
    assert not {cases[bag] for bag in train.tolist()} & {cases[bag] for bag in val.tolist()}


def test_the_fold_column_says_what_is_tested():
    column = [index // 4 for index in range(20)]
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    assert choose_parts(bags(), NONE, column, folds())[2].tolist() == [0, 1, 2, 3]
    assert choose_parts(bags(), splits, column, folds(3))[2].tolist() == [12, 13, 14, 15]
    assert choose_parts(bags(), splits, column, folds())[2].tolist() == [16, 17, 18, 19]


def test_without_columns_stratified_folds_are_dealt():
    made = choose_parts(bags(), NONE, NONE, folds(2))
    expected = stratified_folds(bags().labels, None, 2, 5, 0.1, 0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(made, expected, strict=True))


@pytest.mark.parametrize(
    ("splits", "column", "fold", "message"),
    [
        (["train"] * 19 + [None], NONE, None, "'s19' has no split, but others have one"),
        (NONE, [None] + [0] * 19, 0, "'s0' has no fold, but others have one"),
        (NONE, [1] * 10 + [12] * 5 + [2] * 5, 0, "data.fold=0: the column `fold` has 1, 2, 12"),
    ],
)
def test_a_column_that_does_not_say_is_refused(splits, column, fold, message):
    with pytest.raises(UserError, match=message):
        choose_parts(bags(), splits, column, folds(fold))
