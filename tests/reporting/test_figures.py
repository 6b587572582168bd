"""Names of rows in the figures of a report."""

import pytest

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.figures import LINE, LINES, broken, comparison_figure


@pytest.mark.parametrize("length", [10, 150, 175, 181, 400])
@pytest.mark.parametrize("words", [1, 3, 17])
def test_names_of_any_length_fit_in_their_lines(length, words):
    text = "".join(" " if words > 1 and index % max(6, length // words) == 5 else "x" for index in range(length))
    lines = broken(text).split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= LINE
    assert "".join(lines).replace(" ", "") == text.replace(" ", "") or "…" in broken(text)


def test_names_that_differ_in_the_middle_stay_apart():
    first, second = (
        f"mil aggregator=gated_abmil_with_a_long_name data={data} encoder=of_a_name_as_long" for data in "ab"
    )
    assert broken(first) != broken(second)
    assert "…" not in broken(first)


def test_a_dollar_begins_no_formula_and_rows_are_as_high_as_their_names():
    assert broken("a$b$") == r"a\$b\$"
    entries = [Entry(name, "model", "bag_auroc", [0.5], 0.5, None, None, None) for name in ("short", "x " * 80)]
    narrow, high = (comparison_figure(entries[:count], "bag_auroc", {}) for count in (1, 2))
    assert high.get_figheight() > narrow.get_figheight() + 2 * 0.4 - 0.32
