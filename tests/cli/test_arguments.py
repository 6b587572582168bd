"""Paths and names as people type them, against Hydra's own parser."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_mil.cli.arguments import check_additions, check_options, quoted, with_quoted_values, with_words_as_list
from kd_mil.core.errors import UserError


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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--experiment=weno_dsmil"],
            "--experiment=weno_dsmil: settings are written without dashes, experiment=weno",
        ),
        (["--slides", "y"], "--slides y: settings are written without dashes, slides=y"),
        (["--out-folder", "out=x"], "--out-folder: settings are written without dashes, out_folder=VALUE"),
        (["seed=1", "-seed=3"], "-seed=3: settings are written without dashes, seed=3"),
    ],
)
def test_settings_written_as_options_are_answered_with_the_right_spelling(arguments, line):
    with pytest.raises(UserError) as refused:
        check_options(arguments)
    assert str(refused.value).startswith(line)


def test_options_of_hydra_pass():
    check_options(["-m", "--cfg", "job", "--config-dir", "mine", "--config-dir=mine", "seed=-1", "+a.b=-2"])


@pytest.mark.parametrize(
    ("command", "added", "line"),
    [
        ("predict", "+labels=x", "kd_mil.predict has no setting labels"),
        ("run", "+seeds=1", "kd_mil.run has no setting seeds; did you mean seed?"),
        ("run", "++new=1", "kd_mil.run has no setting new"),
        ("run", "+paths.run_roots=x", "kd_mil.run has no setting paths.run_roots; did you mean paths.run_root?"),
    ],
)
def test_what_nobody_would_read_is_not_added(command, added, line):
    with pytest.raises(UserError, match=f"^{re.escape(f'{added}: {line}')}$"):
        check_additions(["seed=1", added], command)


def test_what_a_class_takes_may_be_added():
    check_additions(["+aggregator.width=64", "+callbacks.mine._target_=a.B", "++seed=3", "+paths.run_root=x"], "run")


def test_no_arguments_at_all_pass():
    check_options([])
