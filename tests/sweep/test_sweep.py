"""Sweeps: fresh processes, fair shares, finished points kept, failures listed; a search that can be taken up again."""

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hydra_plugins.kd_mil_plugins.launcher import ProcessLauncher
from kd_mil.core.errors import UserError
from kd_mil.core.machine.environment import TRACEBACK_WANTED, environment
from kd_mil.core.run_files import write_json
from kd_mil.sweep.points import Point, point_of
from kd_mil.sweep.processes import run_points, shares, threads_of_each
from kd_mil.sweep.search import Choice, Range, Search
from tests.support.command import kd_mil
from tests.support.killing import start, wait_for

TINY = ["data=digits_mil", "data.max_train_bags=20", "data.max_test_bags=10", "trainer=cpu", "trainer.max_epochs=1"]
TINY += ["encoder=tiny_cnn"]


class FakePoint(Point):
    """A point whose process is a line of Python run in its directory."""

    @property
    def command(self):
        return [sys.executable, "-c", f"import os, sys, time; os.chdir({str(self.directory)!r}); {self.overrides[0]}"]


FINISH = """
import json
json.dump({"status": "finished", "config_hash": "h", "monitor": "val/m/bag_loss"}, open("run.json", "w"))
json.dump({"val/m/bag_loss": 0.5}, open("metrics.json", "w"))
"""


def fake(directory, code):
    return FakePoint([f"exec({code!r})"], directory, "h")


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


def test_a_failure_stops_no_other_point_and_finished_ones_are_kept(tmp_path):
    codes = {"good": FINISH, "bad": "print('error: no such thing'); sys.exit(2)", "crash": "raise ValueError('lost')"}
    points = [fake(tmp_path / name, code) for name, code in codes.items()]
    outcomes = run_points(points, parallel=2)
    assert statuses(outcomes) == ["finished", "failed", "failed"]
    assert [outcome.message for outcome in outcomes[1:]] == ["no such thing", "ValueError: lost"]
    before = (tmp_path / "good" / "run.json").stat().st_mtime_ns
    assert statuses(run_points(points)) == ["kept", "failed", "failed"]
    assert (tmp_path / "good" / "run.json").stat().st_mtime_ns == before


def test_a_crash_is_tried_again_but_a_mistake_in_the_settings_is_not(tmp_path):
    count = "open('tries', 'a').write('x'); "
    flaky = fake(tmp_path / "flaky", f"{count}\nif len(open('tries').read()) < 2: sys.exit(1)\n{FINISH}")
    mistaken = fake(tmp_path / "mistaken", f"{count}sys.exit(2)")
    assert statuses(run_points([flaky, mistaken], attempts=2)) == ["finished", "failed"]
    assert (tmp_path / "flaky" / "tries").read_text() == "xx"
    assert (tmp_path / "mistaken" / "tries").read_text() == "x"


def test_a_process_that_ends_well_without_results_has_failed(tmp_path):
    assert statuses(run_points([fake(tmp_path / "empty", "pass")])) == ["failed"]


def test_points_run_at_a_time(tmp_path):
    """Two that each wait for the other's file."""
    meet = "open('../{}', 'w'); t = time.time()\nwhile not os.path.exists('../{}'): assert time.time() - t < 30\n"
    points = [fake(tmp_path / a, meet.format(f"at_{a}", f"at_{b}") + FINISH) for a, b in (("x", "y"), ("y", "x"))]
    assert statuses(run_points(points, parallel=2, attempts=1)) == ["finished", "finished"]


def test_gpus_and_threads_are_shared_out():
    assert shares(1, ["0", "1"], 8) == [{"OMP_NUM_THREADS": "8"}]
    assert shares(2, [], 4) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares(4, list("0123"), 16)] == list("0123")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares(2, list("4567"), 16)] == ["4,5", "6,7"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares(3, ["7", "9"], 2)] == ["7", "9", "7"]


def test_all_points_of_a_sweep_compute_with_as_many_threads(tmp_path, capsys):
    """Else `sweep.parallel` of the day would change the last bits of those still missing."""
    points = [Point([f"seed={seed}"], tmp_path / str(seed), "h") for seed in range(3)]
    assert [threads_of_each(points, parallel, 8) for parallel in (1, 2, 3, 16)] == [8, 4, 2, 1]
    write_json(tmp_path / "0" / "run.json", {"config_hash": "h", "threads": 5})
    assert threads_of_each(points, 4, 8) == 5
    write_json(tmp_path / "1" / "run.json", {"config_hash": "other", "threads": 7})
    assert threads_of_each(points, 4, 8) == 5, "it will start anew"
    assert capsys.readouterr().out == ""
    write_json(tmp_path / "2" / "run.json", {"config_hash": "h", "threads": 6})
    assert threads_of_each(points, 4, 8) == 5
    assert "began with 5 and 6 CPU threads" in capsys.readouterr().out


def test_a_search_that_resumes_computes_with_as_many_threads_as_it_began_with(tmp_path):
    assert search(tmp_path, 2, parallel=1).threads(4) == 4
    assert search(tmp_path, 2, parallel=4).threads(1) == 4


@pytest.mark.parametrize("text", ["{", '{"val/m/bag_loss": "low"}'])
def test_a_finished_point_whose_metrics_are_damaged_has_failed_alone(tmp_path, text):
    points = [fake(tmp_path / name, FINISH) for name in ("good", "damaged")]
    run_points(points)
    (tmp_path / "damaged" / "metrics.json").write_text(text)
    outcomes = run_points(points)
    assert statuses(outcomes) == ["kept", "failed"]
    assert "metrics.json is damaged" in outcomes[1].message


def test_a_damaged_record_of_a_point_stops_no_other(tmp_path):
    points = [point_of_folder(tmp_path / "damaged", "{"), fake(tmp_path / "good", FINISH)]
    outcomes = run_points(points)
    assert statuses(outcomes) == ["failed", "finished"]
    assert "run.json is damaged" in outcomes[0].message


def point_of_folder(folder, record):
    folder.mkdir()
    (folder / "run.json").write_text(record)
    config = OmegaConf.create({"seed": 1, "ckpt_path": None, "overwrite": False, "sweep": {}})
    return point_of(config, hydra_part(folder, ["seed=1"]))


def test_a_point_whose_folder_holds_another_run_changes_nothing_there(tmp_path):
    write_json(tmp_path / "run.json", {"status": "finished", "config_hash": "other"})
    config = OmegaConf.create({"seed": 1, "ckpt_path": None, "overwrite": False, "sweep": {}})
    point = point_of(config, hydra_part(tmp_path, ["seed=1"]))
    [outcome] = run_points([point])
    assert outcome.status == "failed"
    assert "holds a run of another configuration" in outcome.message
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    config.overwrite = True
    assert point_of(config, hydra_part(tmp_path, ["seed=1"])).refusal == ""


@pytest.mark.parametrize(
    ("settings", "message"), [({"parallel": 0}, "sweep.parallel=0"), ({"attempts": 0}, "attempts")]
)
def test_impossible_settings_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_points([fake(tmp_path / "a", "pass")], **settings)


def test_two_points_in_one_directory_are_refused(tmp_path):
    with pytest.raises(UserError, match="share"):
        run_points([fake(tmp_path / "a", "pass")] * 2)


def hydra_part(directory, overrides):
    sources = [{"provider": "main", "path": "x"}, {"provider": "command-line", "path": "/mine"}]
    runtime = {"output_dir": str(directory), "config_sources": sources}
    return OmegaConf.create({"overrides": {"task": overrides}, "runtime": runtime})


def test_the_command_of_a_point_leaves_the_sweep_out_and_survives_odd_directories(tmp_path):
    directory = tmp_path / "it's a=b,c"
    config = OmegaConf.create({"seed": 1, "ckpt_path": None, "sweep": {"parallel": 2}, "paths": {}})
    point = point_of(config, hydra_part(directory, ["seed=1", "sweep.parallel=2", "hpm=off"]))
    assert point.command[1:] == [
        *("-m", "kd_mil.run", "--config-dir", "/mine", "seed=1", "hpm=off"),
        "hydra.run.dir='" + str(directory).replace("'", "\\'") + "'",
    ]
    config.sweep.parallel = 5
    assert point_of(config, hydra_part(directory, [])).config_hash == point.config_hash
    config.seed = 2
    assert point_of(config, hydra_part(directory, [])).config_hash != point.config_hash


def test_only_results_of_the_same_configuration_count_as_finished(tmp_path):
    write_json(tmp_path / "run.json", {"status": "finished", "config_hash": "h", "monitor": "val/m/bag_loss"})
    assert not Point([], tmp_path, "h").finished, "its metrics are missing"
    write_json(tmp_path / "metrics.json", {"val/m/bag_loss": 0.25})
    assert Point([], tmp_path, "h").finished
    assert Point([], tmp_path, "h").score == 0.25
    assert not Point([], tmp_path, "other").finished


def test_children_do_not_believe_to_be_ranks_nor_inherit_the_traceback_switch(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv(TRACEBACK_WANTED, "")
    own = environment({"A": "b"}, without=["LOCAL_RANK"])
    assert own["A"] == "b"
    assert not {"LOCAL_RANK", "HYDRA_FULL_ERROR"} & set(own)
    monkeypatch.setenv(TRACEBACK_WANTED, "1")
    assert environment({})["HYDRA_FULL_ERROR"] == "1"


def value_of(point, name):
    return float(next(text for text in point if text.startswith(f"{name}=")).split("=")[1])


def search(path, trials, **settings):
    pytest.importorskip("optuna")
    space = {"x": Range(0.0, 1.0), "kind": Choice(("a", "b"))}
    return Search(path / "study.sqlite", space, ["fixed=1"], trials, **settings)


def test_a_search_finds_the_good_region_and_can_be_taken_up_again(tmp_path):
    asked = []

    def evaluate(points):
        asked.extend(points)
        return [(value_of(point, "x") - 0.7) ** 2 + ("kind=a" in point) for point in points]

    first = search(tmp_path, 12, parallel=3)
    first.run(evaluate)
    assert len(asked) == 12
    second = search(tmp_path, 30)
    second.run(evaluate)
    assert (second.complete, len(asked)) == (30, 30)
    assert len({value_of(point, "x") for point in asked}) == 30, "taken up again, it draws other numbers"
    assert "kind=b" in second.best
    assert abs(value_of(second.best, "x") - 0.7) < 0.1
    search(tmp_path, 30).run(lambda points: pytest.fail("nothing is left to do"))


def test_what_was_under_way_when_a_search_ended_is_asked_again(tmp_path):
    """The point's directory is named by its values: its run resumes from its last epoch."""
    asked = []

    def die(points):
        asked.append(points[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, 1).run(die)
    search(tmp_path, 1).run(lambda points: asked.append(points[0]) or [1.0])
    assert asked[0] == asked[1]


def test_a_trial_is_the_mean_over_seeds_and_fails_with_any_of_them(tmp_path):
    scores = iter([[1.0, 2.0], [None, 2.0], [3.0, 5.0]])
    two = search(tmp_path, 2, seeds=[0, 1])
    seen = []
    two.run(lambda points: seen.extend(points) or next(scores))
    assert [point[-1] for point in seen[:2]] == ["seed=0", "seed=1"]
    assert [trial.value for trial in two.study.trials] == [1.5, None, 4.0]


def test_a_search_is_not_mixed_with_another_and_does_not_go_on_failing_for_ever(tmp_path):
    with pytest.raises(UserError, match="failed as a whole"):
        search(tmp_path, 5).run(lambda points: [None] * len(points))
    with pytest.raises(UserError, match="another command"):
        search(tmp_path, 5, direction="maximize")


def test_twins_of_a_batch_are_one_run(tmp_path):
    """Two values, four trials at a time: each point is asked for once, and all its trials have its score."""
    pytest.importorskip("optuna")
    batches = []

    def evaluate(points):
        batches.append(points)
        return [1.0 if "kind=a" in point else 2.0 for point in points]

    few = Search(tmp_path / "study.sqlite", {"kind": Choice(("a", "b"))}, [], trials=8, parallel=4)
    few.run(evaluate)
    assert all(len({tuple(point) for point in batch}) == len(batch) <= 2 for batch in batches)
    values = {trial.params["kind"]: set() for trial in few.study.trials}
    for trial in few.study.trials:
        values[trial.params["kind"]].add(trial.value)
    assert (few.complete, values) == (8, {"a": {1.0}, "b": {2.0}})


def test_what_failed_is_tried_again_once_by_the_next_command(tmp_path):
    asked = []

    def fail_first(points):
        asked.extend(points)
        return [None if len(asked) == 1 else 1.0 for _ in points]

    search(tmp_path, 2).run(fail_first)
    failed = asked[0]
    for trials, result in ((3, None), (4, 1.0), (5, 1.0)):
        session = []
        search(tmp_path, trials).run(
            lambda points, session=session, result=result: (
                session.extend(points) or [result if point == failed else 1.0 for point in points]
            )
        )
        assert session.count(failed) == (trials < 5), "not once it is complete"


def test_what_fails_again_does_not_stop_the_search_before_it_tries_something_else(tmp_path):
    broken = []
    for _ in range(2):
        with pytest.raises(UserError, match="failed as a whole"):
            search(tmp_path, 1).run(lambda points: broken.extend(points) or [None] * len(points))
    third = search(tmp_path, 1)
    third.run(lambda points: [None if point in broken else 1.0 for point in points])
    assert third.complete == 1


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path):
    """kill -9 of the sweep in its second point; the failing third is listed, the rest finished, nothing is repeated."""
    command = ["-m", "experiment=mil_max", *TINY, "seed=0,1,-1"]
    sweep = start(*command, cwd=tmp_path)
    wait_for(sweep, "finished")
    second = next_point(tmp_path)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    first = tmp_path / "runs" / "mil_max" / f"{','.join(sorted([*TINY, 'seed=0']))}"
    before = times(first)
    wait_until_gone(second)
    again = kd_mil("run", *command, cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert "1 of 3 points failed" in again.stdout
    assert "seed=-1: must lie in" in again.stdout
    assert "kept" in again.stdout
    assert times(first) == before
    finished = [json.loads(path.read_text())["seed"] for path in tmp_path.rglob("run.json")]
    assert sorted(finished) == [0, 1]


def next_point(folder):
    """Wait until a second point has a directory; its name."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [path for path in folder.glob("runs/*/*seed=1*") if path.is_dir()]
        if found:
            return found[0].name
        time.sleep(0.05)
    raise AssertionError("no second point")


def wait_until_gone(name):
    """A point ends with its sweep."""
    deadline = time.monotonic() + 60
    while any(name in command_line(path) for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "the point outlives its sweep"
        time.sleep(0.2)


def command_line(process):
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
def test_another_launcher_and_a_search_run_fresh_processes_too(tmp_path):
    """Hydra's basic launcher stays in one process, submitit's has one for each job: neither trains in it."""
    pytest.importorskip("optuna")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    common = ["-m", "experiment=mil_max", *TINY]
    kd_mil("run", *common, "hydra/launcher=submitit_local", "seed=0", cwd=tmp_path)
    kd_mil("run", *common, "hydra/launcher=basic", "seed=1", cwd=tmp_path)
    adaptive = ["hydra/sweeper=adaptive", "sweep.trials=1", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    result = kd_mil("run", *common, *adaptive, cwd=tmp_path, OMP_NUM_THREADS="2")
    assert "best of 1 trials: optimizer.lr=" in result.stdout
    begun = set(tmp_path.rglob("run.json"))
    more = ["sweep.trials=3", "sweep.parallel=2"]
    kd_mil("run", *common, *adaptive, *more, cwd=tmp_path, OMP_NUM_THREADS="2")
    resumed = [json.loads(path.read_text())["threads"] for path in set(tmp_path.rglob("run.json")) - begun]
    assert resumed == [2, 2], "as many as the search began with"
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert [record["status"] for record in records] == ["finished"] * 5
    for record in records:
        assert " -m kd_mil.run " in record["command"]
        assert "hydra.run.dir=" in record["command"]
        assert "-m" not in shlex.split(record["command"])[3:]


@pytest.mark.slow
def test_a_sweep_over_no_values_is_refused():
    launcher = ProcessLauncher()
    launcher.setup(hydra_context=None, task_function=None, config=None)
    with pytest.raises(UserError, match="the sweep has no points"):
        launcher.launch([], 0)


def test_a_sweep_is_refused_in_every_rank(tmp_path):
    result = start("-m", "experiment=mil_max", *TINY, "seed=0,1", cwd=tmp_path, RANK="0", WORLD_SIZE="2")
    output, _ = result.communicate(timeout=60)
    assert result.returncode == 2
    assert "torchrun would start this sweep in every rank" in output
