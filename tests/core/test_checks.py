"""What no type can say about a setting is one line that names it."""

import math
from functools import partial

import pytest

from kd_mil.core.checks import above, at_least, check_cell, check_id, one_of, share, whole
from kd_mil.core.errors import UserError


@pytest.mark.parametrize(
    ("value", "choices", "line"),
    [
        ("lst", ("best", "last"), "select=lst: choose best or last, did you mean 'last'?"),
        ("x", ("none", "sqrt", "linear"), "select=x: choose none, sqrt or linear"),
        (False, ("on", "off"), "select=false: choose on or off"),
        (None, ("clam",), "select=null: choose clam"),
        ("fp16", ("float32", None), "select=fp16: choose float32 or null"),
    ],
)
def test_one_of_says_what_there_is_and_what_was_meant(value, choices, line):
    with pytest.raises(UserError) as caught:
        one_of("select", value, choices)
    assert str(caught.value) == line
    one_of("select", choices[-1], choices)


@pytest.mark.parametrize(
    ("ends", "accepted", "refused", "interval"),
    [
        ({}, [0, 0.5, 1], [-0.01, 1.01, math.nan], "[0, 1]"),
        ({"zero": False}, [0.01, 1], [0, math.inf], "(0, 1]"),
        ({"one": False}, [0, 0.99], [1, 1.0], "[0, 1)"),
        ({"zero": False, "one": False}, [0.5], [0.0, 1], "(0, 1)"),
    ],
)
def test_a_share_lies_between_its_ends(ends, accepted, refused, interval):
    for value in accepted:
        share("hpm.threshold", value, **ends)
    for value in refused:
        with pytest.raises(UserError) as caught:
            share("hpm.threshold", value, **ends)
        assert str(caught.value) == f"hpm.threshold={value}: a share, it must lie in {interval}"


def test_bounds_are_finite_numbers():
    at_least("rounds", 1, 1)
    above("temperature", 0.1)
    for value in (0, 0.99, math.inf, math.nan):
        with pytest.raises(UserError, match=f"rounds={value}: must be at least 1"):
            at_least("rounds", value, 1)
    for value in (0, -1, math.inf, math.nan):
        with pytest.raises(UserError, match=f"temperature={value}: must be above 0"):
            above("temperature", value)


@pytest.mark.parametrize("value", ["fine", True, None, [1]])
def test_what_is_no_number_is_said(value):
    for check in (partial(above, bound=0), partial(at_least, least=0), share):
        with pytest.raises(UserError, match=r"^mpp=\S+: must be a number$"):
            check("mpp", value)
    for number in (value, 1.0, math.nan, 0):
        with pytest.raises(UserError, match=r"^rows=\S+: must be a whole number, at least 1$"):
            whole("rows", number, 1)
    whole("rows", 1, 1)


@pytest.mark.parametrize(
    "value", ["b17", "B11.03-A", "tumor_001", "ß 切片", ".b", "-1", "a..b", "x" * 200, "a=b", "1e5"]
)
def test_ids_name_files(value, tmp_path):
    check_id(value, "slides.csv, line 2")
    (tmp_path / f"{value}.h5").touch()
    assert [path.name for path in tmp_path.iterdir()] == [f"{value}.h5"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((value, "cannot name a file") for value in ("", ".", "..", "../x", "/x", "a/b", "..\\x", "a\\b", "C:\\x")),
        *(("x" * 201, "has 201 bytes"), ("切" * 67, "has 201 bytes")),
        *((value, "control character") for value in ("a\nb", "a\tb", "a\0b", "a\x7fb", "a\u2028b", "a\udcffb")),
        *((f"{sign}cmd|' /C calc'!A0", "begins as a formula") for sign in "=+-@"),
    ],
)
def test_unfit_ids_are_refused(value, reason):
    with pytest.raises(UserError, match=f"^slides.csv, line 2: id .*{reason}") as caught:
        check_id(value, "slides.csv, line 2")
    assert "\n" not in str(caught.value)


def test_cells_that_spreadsheets_would_run_are_refused():
    for value in ("", "tumour", "-1", "+0.5", "1-2", "a/b"):
        check_cell("label", value, "slides.csv")
    for value in ("-1+2", "@SUM(A1)", "=1", "+a"):
        with pytest.raises(UserError, match=r"^slides\.csv: label .* begins as a formula"):
            check_cell("label", value, "slides.csv")


@pytest.mark.parametrize("check", [share, lambda *given: at_least(*given, 0), above])
@pytest.mark.parametrize("value", ["few", None, [1], True])
def test_what_is_no_number_is_one_line(check, value):
    with pytest.raises(UserError, match=r"^batch_size=.*: must be a number$"):
        check("batch_size", value)
