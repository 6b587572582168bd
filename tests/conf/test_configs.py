"""Every configuration composes, says nothing it does not mean, and builds its objects."""

import inspect

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import run_name
from kd_mil.core.errors import UserError
from kd_mil.jobs.before_training import choose_monitor
from tests.support.configs import EXPERIMENTS, compose_run


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_its_method_builds(experiment):
    config = compose_run(f"experiment={experiment}")
    assert config.experiment_name == experiment
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    plain.pop("hydra")
    assert "???" not in str({key: value for key, value in plain.items() if key != "data"})
    features = config.encoder._target_.endswith(("FeatureProjector", "Identity"))
    shape = (16,) if features else (3, 32, 32)
    inputs = {"instance_shape": shape, "num_classes": 2}
    if ".pairs." in config.data._target_:
        names = {"class_names": ["benign", "malignant"], "auxiliary": False, "held_out": ""}
        inputs = names | {"teacher_downsample": 2.0, "student_downsample": 8.0}
    method = instantiate(config.method, _convert_="all")(**inputs)
    choose_monitor(config, method)
    if plain["monitor"] is None:
        first, last = method.roles[0], method.roles[-1]
        assert config.monitor in {f"val/{first}/bag_loss", f"val/{last}/bag_loss", f"val/{last}/image_loss"}
        assert config.monitor_mode == "min"


COMPUTE = [
    path
    for group in ("method", "aggregator")
    for path in sorted((CONFIG_DIR / group).glob("*.yaml"))
    if "_target_" in OmegaConf.load(path) and not path.stem.endswith("_released") and path.stem != "custom"
]


@pytest.mark.parametrize("path", COMPUTE, ids=lambda path: path.stem)
def test_python_code_gets_the_defaults_of_the_commands(path):
    """`RNNMIL(...)` is what `method=rnn_mil` trains; released settings differ on purpose."""
    config = OmegaConf.to_container(OmegaConf.load(path))
    parameters = inspect.signature(get_class(config["_target_"])).parameters
    for name in parameters.keys() & config.keys():
        default, value = parameters[name].default, config[name]
        is_plain = isinstance(value, bool | int | float | list | None) or not str(value).startswith(("${", "{"))
        if default is not inspect.Parameter.empty and is_plain:
            assert value == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("monitor", ["val/student/instance_auroc", "test/student/bag_auroc", "val/model/bag_loss", "x"])
def test_only_validation_bags_of_a_role_may_select(monitor):
    """Instance labels and test data select nothing."""
    config = compose_run("experiment=weno_abmil", f"monitor={monitor}")
    method = instantiate(config.method, _convert_="all")(instance_shape=(1, 8, 8), num_classes=2)
    with pytest.raises(UserError, match="validation bags only"):
        choose_monitor(config, method)


def test_a_misspelt_metric_cannot_select():
    config = compose_run("experiment=weno_abmil", "monitor=val/student/bag_aurocc")
    method = instantiate(config.method, _convert_="all")(instance_shape=(1, 8, 8), num_classes=2)
    with pytest.raises(UserError, match=r"bag_aurocc: .* METRIC one of bag_loss"):
        choose_monitor(config, method)


@pytest.mark.parametrize(("metric", "mode"), [("bag_auroc", "max"), ("bag_loss", "min")])
def test_direction_of_selection_follows_the_metric(metric, mode):
    """The student may be selected by what it says of validation bags itself."""
    config = compose_run("experiment=weno_abmil", f"monitor=val/student/{metric}")
    method = instantiate(config.method, _convert_="all")(instance_shape=(1, 8, 8), num_classes=2)
    choose_monitor(config, method)
    assert config.monitor_mode == mode


def test_cases_select_where_they_are_reported():
    config = compose_run("experiment=weno_abmil")
    method = instantiate(config.method, _convert_="all")(instance_shape=(1, 8, 8), num_classes=2)
    choose_monitor(config, method, of_cases=True)
    assert (config.monitor, config.monitor_mode) == ("val/teacher/case_loss", "min")
    with pytest.raises(UserError, match=r"set data\.report_by=case"):
        choose_monitor(config, method)


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIG_DIR)))
def test_every_target_exists(path):
    """A `_target_` that moved would only show when somebody picks that file."""
    from hydra.utils import get_object

    def targets(node):
        if isinstance(node, dict):
            yield from ([node["_target_"]] if node.get("_target_", "???") != "???" else [])  # ???: the user names it
            for value in node.values():
                yield from targets(value)
        elif isinstance(node, list):
            for value in node:
                yield from targets(value)

    for target in targets(OmegaConf.to_container(OmegaConf.load(path))):
        assert callable(get_object(target))


def test_run_directories_are_named_by_the_overrides():
    assert run_name(["experiment=weno_dsmil"]) == "default"
    assert run_name(["seed=1", "experiment=weno_dsmil", "hpm.threshold=0.7"]) == "hpm.threshold=0.7,seed=1"
    assert run_name(["data.root=/a/b c"]) == "data.root=_a_b_c"
    long = [f"data.root={'x' * 300}{end}" for end in "ab"]
    assert run_name(long[:1]) != run_name(long[1:])
    assert len(run_name(long[:1])) < 125


@pytest.mark.parametrize(
    ("overrides", "standardise"),
    [
        (["encoder=small_cnn"], True),
        (["encoder=lite0"], False),
        (["encoder=lite0", "encoder.pretrained=false"], True),
        (["encoder=timm", "encoder.pretrained=true", "preprocess=tissue"], False),
        (["encoder=timm", "encoder.weights=resnet18.pth"], False),
        (["encoder=uni"], False),
        (["encoder=lite0", "preprocess.standardise=true"], True),
        (["data=feature_bags"], True),
    ],
)
def test_pixels_are_left_to_published_weights_that_bring_their_own_statistics(overrides, standardise):
    assert compose_run(*overrides).preprocess.standardise is standardise


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_setting_of_a_command_has_the_name_of_a_group_that_it_does_not_choose_from(path):
    """Hydra takes `reading=level0` for a choice of the group `reading`, and never for a value."""
    config = OmegaConf.to_container(OmegaConf.load(path))
    chosen = {group.split()[-1] for entry in config.pop("defaults", []) if isinstance(entry, dict) for group in entry}
    groups = {folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir()} - {"hydra"}
    assert not (set(config) & groups) - chosen
