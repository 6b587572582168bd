"""Numbers and names in the tables that people read."""

import pytest

from kd_mil.reporting.comparison import Entry
from kd_mil.reporting.tables import cell_text, in_cell, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1234, ".123"),
        (0.0, ".000"),
        (-0.5, "-.500"),
        (1.0, "1.000"),
        (10.123, "10.123"),
        (100.0, "100.000"),
        (-20.05, "-20.050"),
        (0.9999, "1.000"),
        (None, "nan"),
    ],
)
def test_values(value, text):
    assert value_text(value) == text


def test_a_cell():
    entry = Entry("weno", "student", "bag_loss", [10.123, None, 0.5], 5.3118, 6.805, 1.0, 10.25)
    assert cell_text(entry) == "5.312 ± 6.805 [1.000, 10.250] (10.123 nan .500)"


def test_a_name_stays_in_its_cell():
    assert in_cell("a=x|y\n<img src=x>") == "a=x\\|y &lt;img src=x>"
