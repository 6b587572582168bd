"""Paths and names as people type them, against Hydra's own parser."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_mil.cli.arguments import (
    check_additions,
    check_options,
    options_first,
    quoted,
    with_quoted_values,
    with_words_as_list,
    without_unset_groups,
)
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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config-name=predict"], "--config-name: a command has a configuration of its own"),
        (["-cn", "predict"], "-cn: a command has a configuration of its own"),
        (["hydra/sweeper=adaptive", "seed=1"], "hydra/sweeper=adaptive: read by sweeps only, which take -m"),
        (["seed=1", "sweep.parallel=2"], "sweep.parallel=2: read by sweeps only, which take -m"),
        (["+hydra.sweeper.params.seed=1"], "+hydra.sweeper.params.seed=1: read by sweeps only"),
        (["hydra.run.dir=", "seed=1"], "hydra.run.dir=: is empty, which would mean the working directory"),
    ],
)
def test_what_a_single_command_would_not_read_is_refused(arguments, line):
    with pytest.raises(UserError) as refused:
        check_options(arguments)
    assert str(refused.value).startswith(line)
    for sweep in ("-m", "--multirun", "hydra.mode=MULTIRUN") if "sweep" in line else ():
        check_options([*arguments, sweep])


def test_options_of_hydra_pass():
    check_options(["-m", "--cfg", "job", "--config-dir", "mine", "--config-dir=mine", "seed=-1", "+a.b=-2"])


@pytest.mark.parametrize(
    ("command", "added", "line"),
    [
        ("predict", "+label=x", "kd_mil.predict has no setting label; did you mean labels?"),
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


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("experiment=weno -m seed=0,1", "-m experiment=weno seed=0,1"),
        ("a=1 --cfg job b=2 -m", "--cfg job -m a=1 b=2"),
        ("a=1 --config-dir mine b=2 --config-dir=more", "--config-dir mine --config-dir=more a=1 b=2"),
        ("a=1 --config-dir", "a=1 --config-dir"),
    ],
)
def test_options_may_stand_behind_settings(typed, taken):
    assert options_first(typed.split()) == taken.split()


def test_a_group_in_which_nothing_is_chosen_may_be_said_to_be_so():
    assert without_unset_groups(["encoder=null", "stain=null", "tissue=null", "cache=null"], "extract") == [
        "tissue=null",
        "cache=null",
    ]
