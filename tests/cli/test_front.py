"""`kd-mil`: one name for all commands, and what there is to choose from."""

import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import kd_mil.__main__ as front
from kd_mil.cli.arguments import CONFIG_DIR
from kd_mil.cli.catalogue import DATA, catalogue, chosen, first_sentence
from kd_mil.cli.composed import comments, composed, experiment_file, shown_settings
from kd_mil.cli.experiments import check_experiment, own_experiments, register_experiments
from kd_mil.cli.help import settings_of
from kd_mil.core.errors import UserError


def said(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["kd-mil", *arguments])
    front.main()
    return capsys.readouterr().out


def test_every_command_is_listed():
    files = {path.stem for path in Path(front.__file__).parent.glob("*.py")} - {"__init__", "__main__"}
    assert files == set(front.COMMANDS)


def test_a_command_gets_its_own_arguments(monkeypatch, capsys):
    assert said(monkeypatch, capsys, "frontier", "--help").startswith("python -m kd_mil.frontier runs=PATTERN")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_all(arguments, monkeypatch, capsys):
    text = said(monkeypatch, capsys, *arguments)
    assert all(f"\n  {name} " in text for name in front.COMMANDS | front.MORE)


@pytest.mark.parametrize("name", front.MORE)
def test_help_of_what_has_no_settings(name, monkeypatch, capsys):
    assert said(monkeypatch, capsys, name, "--help") == f"kd-mil {name}: {front.MORE[name]}\n"


def test_the_version(monkeypatch, capsys):
    assert said(monkeypatch, capsys, "--version") == f"kd_mil {front.kd_mil.__version__}\n"


@pytest.mark.parametrize(
    "line", ["trian", "list", "list aggregatrs", "list ../conf", "init", "init data=x", "init weno ~hpm"]
)
def test_mistakes_are_one_line(line, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        said(monkeypatch, capsys, *line.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_lists_say_one_line_each(monkeypatch, capsys):
    lines = said(monkeypatch, capsys, "list", "aggregators").splitlines()
    assert "dsmil           DSMIL (Li et al. 2021), as its authors' code builds it" in lines
    assert len(lines) == len(list((CONFIG_DIR / "aggregator").glob("*.yaml")))


@pytest.mark.parametrize("kind", ["experiments", "methods", "aggregators", "encoders", "data", "optimizer", "hpm"])
def test_every_choice_says_what_it_is(kind):
    assert all(what for _, what in catalogue(CONFIG_DIR, kind))


def test_data_say_whether_they_are_embedded():
    rows = dict(catalogue(CONFIG_DIR, "data"))
    assert rows["digits_mil"].startswith("[embedded]")
    assert rows["colon_nuclei"].startswith("[yours]")


@pytest.mark.parametrize(
    ("kind", "name", "needs"),
    [
        ("experiments", "weno_clam_sb", "embedded"),
        ("experiments", "weno_dsmil", "embedded"),
        ("experiments", "resolution_teacher", "embedded"),
        ("experiments", "d2l_colon", "yours"),
        ("experiments", "weno_dsmil_released", "yours"),
        ("experiments", "ifkd_synthetic", "extra"),
        ("experiments", "ifkd_from_weno", "yours"),
        ("encoders", "small_cnn", "embedded"),
        ("encoders", "uni", "weights"),
        ("encoders", "lite0", "extra"),
        ("encoders", "custom", "yours"),
        ("segmenter", "lite0_mil", "extra"),
    ],
)
def test_what_a_choice_needs(kind, name, needs):
    assert dict(catalogue(CONFIG_DIR, kind))[name].startswith(f"[{needs}] ")


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_data_of_an_experiment_are_those_that_it_composes(path):
    _, choices = composed([f"experiment={path.stem}"])
    assert choices["data"] == (chosen(CONFIG_DIR, path.stem, "data") or DATA)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# One (of Li et al. 2021: a. b). Two\n_target_: x\n", "One (of Li et al. 2021: a. b)"),
        ("# @package _global_\n# Any: mine\n# more\n", "Any"),
        ("# Runs\n# over lines. End\n", "Runs over lines"),
        ("a: 1  # no head\n", ""),
    ],
)
def test_the_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


def test_settings_leave_out_how_parts_are_built():
    lines = ["_target_: a.B", "_partial_: true", "encoder: ${encoder}", "seed: ${seed}   # of the run", "width: 3"]
    assert settings_of(lines) == [("seed=${seed}", "of the run"), ("width=3", "")]


@pytest.mark.parametrize("file", ["hpm/threshold", "tissue/he", "tiling/20x_256", "run", "extract", "predict"])
def test_settings_of_users_say_what_they_mean(file):
    rows = settings_of((CONFIG_DIR / f"{file}.yaml").read_text(encoding="utf-8").splitlines())
    assert [setting for setting, comment in rows if not comment] in ([], ["mode=threshold"])


def test_shown_settings_are_those_of_the_run_with_their_comments():
    text = shown_settings(["experiment=weno_dsmil", "optimizer.lr=0.25"])
    plain = yaml.safe_load(text)
    assert plain["optimizer"]["lr"] == 0.25
    assert plain["method"]["_target_"] == "kd_mil.methods.weno.weno.WENO"
    line = next(line for line in text.splitlines() if line.startswith("  negative_weight:"))
    assert line.endswith("# released code: 0.1 or 0.2")
    line = next(line for line in text.splitlines() if line.startswith("  stain_jitter:"))
    assert "of bags stained" in line, "said in the file that preprocess=tissue starts from"


def test_what_an_experiment_says_of_its_setting_is_shown(tmp_path, monkeypatch):
    (tmp_path / "my_words.yaml").write_text(
        "# @package _global_\ndefaults: [weno_transport]\nseed: 3   # my lucky one\n"
    )
    monkeypatch.chdir(tmp_path)
    known = comments({"experiment": "my_words", "data": "digits_mil"})
    assert known["seed"] == "my lucky one"
    assert known["select"] == "selection on few validation bags costs more than it gives"


def test_settings_of_a_group_with_a_package_of_its_own_keep_their_comments():
    _, choices = composed(["experiment=weno_dsmil"])
    known = comments(choices)
    assert known["seed"].startswith("weights, order, dropout")
    assert known["data.seed"] != known["seed"]


def test_an_experiment_of_ones_own_is_written_found_and_composed(tmp_path, monkeypatch):
    (tmp_path / "my_trial.yaml").write_text(experiment_file(["weno", "data=feature_bags", "hpm=off"]))
    (tmp_path / "other.yaml").write_text("a: 1\n")
    register_experiments(CONFIG_DIR, tmp_path)
    config, choices = composed(["experiment=my_trial", "optimizer.lr=0.5"])
    assert (choices["data"], choices["hpm"], config.optimizer.lr) == ("feature_bags", "off", 0.5)
    plain, _ = composed(["experiment=weno", "data=feature_bags", "hpm=off", "optimizer.lr=0.5"])
    assert config.data == plain.data
    assert config.method == plain.method
    assert [path.name for path in own_experiments(tmp_path)] == ["my_trial.yaml"]


def test_settings_that_are_given_stand_in_the_file(tmp_path):
    given = ["method.negative_weight=0.3", "bags_per_step=4", "trainer=cpu", "data.max_train_bags=7"]
    (tmp_path / "my_values.yaml").write_text(experiment_file(["weno", *given]))
    register_experiments(CONFIG_DIR, tmp_path)
    config, _ = composed(["experiment=my_values"])
    expected, _ = composed(["experiment=weno", *given])
    assert OmegaConf.to_container(config, resolve=False) == OmegaConf.to_container(expected, resolve=False)


def test_what_is_no_file_of_ones_own_is_passed_by(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "broken.yaml").symlink_to("nowhere.yaml")
    assert list(own_experiments(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken", "# @package _global_\na: [1\n", "broken.yaml is not a readable experiment"),
        ("broken", "# @package _global_\n- 1\n", "it holds no settings"),
        ("weno", "# @package _global_\nseed: 3\n", "has the name of an experiment of kd_mil's"),
    ],
)
def test_an_experiment_that_cannot_be_used_is_said_when_it_is_asked_for(name, text, message, tmp_path):
    (tmp_path / f"{name}.yaml").write_text(text)
    register_experiments(CONFIG_DIR, tmp_path)
    check_experiment(["experiment=weno_dsmil"], CONFIG_DIR, tmp_path)
    with pytest.raises(UserError, match=message):
        check_experiment([f"experiment=weno_dsmil,{name}"], CONFIG_DIR, tmp_path)
