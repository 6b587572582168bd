"""Names of run directories, and which exceptions are a user's mistake."""

import errno
import os
import shlex
import warnings

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException

from kd_mil.cli.command import one_line_warning
from kd_mil.cli.mistakes import explain, one_line_for_each_mistake
from kd_mil.cli.resolvers import run_name
from kd_mil.core.errors import UserError
from kd_mil.core.version import __version__
from kd_mil.run import main
from tests.support.command import ROOT, kd_mil
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
        (
            chained(
                InstantiationException("Error in call to target 'a.b.Trainer': TypeError('x')"), TypeError("no\nx")
            ),
            "Trainer: no x",
        ),
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
        ("experiment.name=x", "experiment: none is chosen to have settings: experiment=NAME first"),
    ],
)
def test_a_misplaced_setting_is_found(override, line):
    with pytest.raises(ConfigCompositionException) as caught:
        compose_run(override)
    assert explain(caught.value).startswith(line)


def test_a_group_chosen_by_a_number_is_named_and_no_other_setting(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", "seed=2", "trainer.max_epochs=3", "encoder=3"])
    with pytest.raises(ValueError, match="Config group override") as caught:
        compose_run("seed=2", "trainer.max_epochs=3", "encoder=3")
    assert explain(caught.value) == "encoder=3: choose a group of settings by its name; --help lists them"


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


@pytest.mark.parametrize("typed", ["~encoder", "~trainer.max_epochs", "~loading"])
def test_what_is_taken_away_and_needed_is_named(typed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", typed])

    def read():
        config = compose_run(typed)
        OmegaConf.to_container(config, resolve=True)
        return config.trainer.max_epochs

    with pytest.raises(OmegaConfBaseException) as caught:
        read()
    assert explain(caught.value) == f"{typed}: takes away what is needed; {typed[1:]}=VALUE changes it"


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


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("help", "help: settings are written key=value; --help lists them"),
        ("seed==1", "seed==1: no value that can be read"),
        ("optimizer.lr=tag(log", "optimizer.lr=tag(log: no value that can be read"),
    ],
)
def test_what_hydra_cannot_parse_is_said_without_its_grammar(override, line):
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([override])
    assert explain(caught.value).startswith(line)


@pytest.mark.parametrize("typed", ["method=null", "aggregator=3", "trainer=", "optimizer=true"])
def test_a_group_that_is_not_chosen_by_name_is_the_one_that_is_named(typed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run", "overwrite=true", typed, "seed=3", "=3"])
    error = ValueError("Config group override must be a string or a list.")
    assert explain(error) == f"{typed}: choose a group of settings by its name; --help lists them"


def test_without_slurm_its_launcher_is_named():
    line = explain(RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?'))
    assert line.startswith("hydra/launcher=submitit_slurm: there is no srun here")


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", "--version"])
    main()
    assert capsys.readouterr().out == f"kd_mil {__version__}\n"


def test_a_warning_is_one_line_without_its_source(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", one_line_warning)
    line = warnings.formatwarning(
        UserWarning("AUROC is\nundefined"), UserWarning, "metrics.py", 34, "warnings.warn(...)"
    )
    assert line == "warning: AUROC is undefined\n"


@pytest.mark.parametrize("override", ["hpm.threshold==0.5", "data.classes=[a=b]", "seed", "optimizer.lr=tag(log"])
def test_what_is_no_path_is_not_put_in_quotes(override):
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([override])
    assert "quotes of its own" not in explain(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        *("run", "extract slides=x out=y", "predict", "segment", "export features=x out=y format=clam"),
        *("report folder", "frontier runs=x out=y", "evaluate predictions=x", "doctor"),
    ],
)
def test_ctrl_c_while_libraries_are_imported_is_one_line(line, tmp_path):
    """The first of two libraries, by those names in the working directory, presses the keys."""
    for library in ("torch", "pandas"):
        (tmp_path / f"{library}.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    result = kd_mil(*line.split(), cwd=tmp_path, check=False, PYTHONPATH=str(ROOT))
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "stopped by Ctrl-C: nothing lost, the same command resumes\n"
