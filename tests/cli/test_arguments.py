"""Paths and names as people type them, against Hydra's own parser."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_mil.cli.arguments import quoted, with_quoted_values, with_words_as_list


@pytest.mark.parametrize("text", ["runs/seed=1,it's", "weno a=0.5", "a\\b", "a\\\\", "\\'", "[x]", "plain", "'", ""])
def test_hydra_reads_what_was_typed(text):
    [override] = OverridesParser.create().parse_overrides([f"out={quoted(text)}"])
    assert override.value() == text


def test_quotes_of_ones_own_stay():
    assert quoted("'a,b'") == "'a,b'"
    assert quoted('"a,b"') == '"a,b"'


def test_only_the_values_of_the_keys_are_quoted():
    given = ["out=a,b", "seed=3", "slides=", "features=null", "--cfg", "baseline=weno a=0.5"]
    expected = ["out='a,b'", "seed=3", "slides=", "features=null", "--cfg", "baseline='weno a=0.5'"]
    assert with_quoted_values(given, ("out", "slides", "features", "baseline")) == expected


def test_words_that_are_no_settings_become_a_list():
    assert with_words_as_list(["runs/a", "baseline=mil"], "report", "directories") == [
        "baseline=mil",
        "directories=['runs/a']",
    ]
    assert with_words_as_list(["runs/seed=1,it's"], "report", "directories") == [r"directories=['runs/seed=1,it\'s']"]
    assert with_words_as_list(["seed=3", "hydra.verbose=true", "-h"], "report", "directories") == [
        "seed=3",
        "hydra.verbose=true",
        "-h",
    ]
