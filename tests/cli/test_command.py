"""Names of run directories, and which exceptions are a user's mistake."""

import errno
import os
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from kd_mil.cli.mistakes import explain, one_line_for_each_mistake
from kd_mil.cli.resolvers import run_name
from kd_mil.core.errors import UserError
from kd_mil.run import main
from tests.support.configs import compose_run


def test_a_run_is_named_by_what_was_asked_for_in_any_order():
    assert run_name(["seed=1", "hpm.threshold=0.7"]) == run_name(["hpm.threshold=0.7", "seed=1"])
    assert run_name(["seed=1", "hpm.threshold=0.7"]) == "hpm.threshold=0.7,seed=1"
    assert run_name([]) == "default"


def test_places_and_ways_of_starting_do_not_name_a_run():
    overrides = ["experiment=weno_dsmil", "hydra.run.dir=x", "overwrite=true", "ckpt_path=a/b.ckpt", "seed=2"]
    assert run_name(overrides) == "seed=2"


def test_paths_and_lists_stay_below_the_run_directory():
    name = run_name(["data.root=/data/slides", "data.positive_classes=[a,b]", "paths.run_root=../x"])
    assert "/" not in name


def test_long_names_are_cut_but_stay_different():
    first, second = (run_name([f"data.root={'x' * 300}{end}"]) for end in "ab")
    assert len(first) < 130
    assert first != second
    assert first[:100] == second[:100]


def chained(outer, inner):
    try:
        raise outer from inner
    except type(outer) as error:
        return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("seed=-1: must lie in [0, 2**32)"), "seed=-1: must lie in [0, 2**32)"),
        (
            chained(InstantiationException("Error in call"), UserError("hpm.threshold=2: a share")),
            "hpm.threshold=2: a share",
        ),
        (chained(InstantiationException("Error in\n call to x"), TypeError("no such argument")), "Error in call to x"),
        (RuntimeError("Traceback ...\nkd_mil.errors.UserError: a.h5: NaN"), None),
        (chained(RuntimeError("worker"), UserError("Traceback\nkd_mil.errors.UserError: a.h5: NaN")), "a.h5: NaN"),
        (chained(InstantiationException("bug inside"), ZeroDivisionError("division")), None),
        (ZeroDivisionError("division by zero"), None),
    ],
)
def test_a_mistake_is_one_line_and_a_bug_is_not(error, line):
    assert explain(error) == line


def test_a_misspelt_key_is_answered_with_the_closest():
    config = OmegaConf.create({"threshold": 0.5, "start_epoch": 3})
    OmegaConf.set_struct(config, True)
    with pytest.raises(ConfigAttributeError) as caught:
        config.treshold  # noqa: B018
    assert explain(caught.value).endswith("Did you mean threshold?")
    with pytest.raises(ConfigAttributeError) as caught:
        config.mode  # noqa: B018
    assert explain(caught.value).endswith("There are: threshold, start_epoch.")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("epochs=3", "epochs: no such setting. Did you mean trainer.max_epochs?"),
        ("lr=0.1", "lr: no such setting. Did you mean optimizer.lr?"),
        ("num_workers=2", "num_workers: no such setting. Did you mean loading.num_workers?"),
        ("weight_decy=1", "weight_decy: no such setting. Did you mean optimizer.weight_decay?"),
        ("hpm.treshold=0.5", "hpm.treshold: no such setting. Did you mean threshold?"),
        ("aggregator=gated", "aggregator=gated: known: "),
    ],
)
def test_a_misplaced_setting_is_found(override, line):
    with pytest.raises(ConfigCompositionException) as caught:
        compose_run(override)
    assert explain(caught.value).startswith(line)


def test_mistakes_exit_with_2_and_bugs_pass(capsys):
    with pytest.raises(SystemExit) as exit_, one_line_for_each_mistake():
        raise UserError("fix this")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: fix this\n"
    with pytest.raises(ZeroDivisionError), one_line_for_each_mistake():
        raise ZeroDivisionError
    with pytest.raises(UserError), one_line_for_each_mistake(verbose=True):
        raise UserError("with its traceback")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "full", "out/a.h5"), "out/a.h5: No space left on device: make room, then the same"),
        (OSError(errno.EROFS, "x", "/ro/b"), "/ro/b: Read-only file system: give leave to write there"),
        (PermissionError(errno.EACCES, "x", "c"), "c: Permission denied: give leave"),
        (RuntimeError("unable to write (error message = 'No space left on device')"), "No space left on device: make"),
        (chained(RuntimeError("unexpected pos 64 vs 0"), OSError(errno.ENOSPC, "x")), "No space left on device: make"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line(error, line):
    assert explain(error).startswith(line)


def test_other_errors_of_the_system_are_bugs():
    assert explain(OSError(errno.EIO, "input/output error")) is None


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as exit_, one_line_for_each_mistake():
        raise KeyboardInterrupt
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C: nothing lost, the same command resumes\n"


def test_a_failed_command_leaves_the_environment_as_it_was(monkeypatch, capsys):
    """Else the next command of the same program, or a child, would show tracebacks nobody asked for."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr("sys.argv", ["run", "hpm.treshold=0.5"])
    with pytest.raises(SystemExit):
        main()
    assert "HYDRA_FULL_ERROR" not in os.environ
    assert "KD_MIL_TRACEBACK" not in os.environ
    assert "Did you mean threshold" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["runs/a/seed=0", "../hpm.threshold=0.7,seed=1/checkpoints/best.ckpt", "/x (1)/seed=2"]
)
def test_a_path_that_hydra_takes_apart_is_answered_with_what_it_takes(path):
    parser = OverridesParser.create()
    with pytest.raises(OverrideParseException) as caught:
        parser.parse_overrides([f"ckpt_path={path}"])
    line = explain(caught.value)
    assert line.startswith(f"ckpt_path={path}: ")
    assert "\n" not in line
    [advised] = shlex.split(line.rsplit(": ", 1)[1])
    [parsed] = parser.parse_overrides([advised])
    assert parsed.value() == path


@pytest.mark.parametrize("override", ["hpm.threshold==0.5", "data.classes=[a=b]", "seed", "optimizer.lr=tag(log"])
def test_what_is_no_path_is_not_put_in_quotes(override):
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([override])
    assert "quotes of its own" not in explain(caught.value)
