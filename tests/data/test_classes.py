import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.classes import class_index, class_names, class_of


def test_labels_are_indices_or_are_named():
    assert class_index(["1", "0", "1"], None, "t.csv") == {"0": 0, "1": 1}
    assert class_index([], ["normal", "tumour"], "t.csv") == {"normal": 0, "tumour": 1}
    shared = class_index([], {"benign": 0, "tumour": 1, "normal": 0}, "t.csv")
    assert class_names(shared) == ("benign+normal", "tumour")
    assert class_of("normal", shared, "t.csv, line 2") == 0


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["no", "yes"], None, r"t\.csv: labels no, yes are not .*: data\.classes=\[no,yes\]"),
        (["1", "2"], None, "labels 1, 2 are not the integers 0..C-1"),
        ([], {"no": 0, "yes": 2}, "must be 0..C-1 without a gap"),
    ],
)
def test_labels_without_an_order_are_refused(labels, classes, message):
    with pytest.raises(UserError, match=message):
        class_index(labels, classes, "t.csv")


def test_a_label_outside_the_classes_is_named_with_its_place():
    index = class_index(["0", "1", "1?"], None, "t.csv")
    with pytest.raises(UserError, match=r"t\.csv, line 4: label '1\?' is outside the classes; known: 0, 1"):
        class_of("1?", index, "t.csv, line 4")
