import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.locations import find_root


def test_a_given_root_wins(tmp_path):
    (tmp_path / "second").mkdir()
    assert find_root(str(tmp_path), "elsewhere", ["first"], "X") == tmp_path
    assert find_root(None, str(tmp_path), ["first", "second"], "X") == tmp_path / "second"


def test_a_missing_set_says_what_where_and_how(tmp_path):
    with pytest.raises(
        UserError, match=r"no data at .*/a or .*/b: download X and put it there, or set data.root=FOLDER"
    ):
        find_root(None, str(tmp_path), ["a", "b"], "X")
    with pytest.raises(UserError, match=r"data.root=.*/a does not exist: point it to X"):
        find_root(str(tmp_path / "a"), "", ["b"], "X")
