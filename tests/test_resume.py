"""Whatever ends a run, the same command resumes, and ends where an undisturbed run would have."""

import json
import os
import pickle
import signal
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_mil.core.atomic import write_arrays
from kd_mil.core.checkpoints import AtomicCheckpointIO, read_checkpoint
from kd_mil.core.errors import UserError
from kd_mil.core.records import RunRecord
from kd_mil.core.run_files import read_metrics, write_json
from kd_mil.run import main
from kd_mil.training.stop_on_signal import STOPPED
from tests.support.command import kd_mil
from tests.support.killing import kill, run_and_kill, start, wait_for
from tests.support.tiny_images import write_pictures

TINY = [
    "data=digits_mil",
    "data.max_train_bags=30",
    "data.max_test_bags=10",
    "instances_per_step=64",
    "encoder=tiny_cnn",
    "callbacks.figures=null",
    "hydra.run.dir=out",
]
EXPERIMENTS = {
    "weno_dsmil": ["trainer=cpu", "hpm.start_epoch=2"],
    "mil_gated_abmil": ["trainer=cpu", "preprocess=tissue", "aggregator.dropout=0.3"],
    "weno_abmil": ["trainer=ddp_cpu", "hpm.start_epoch=2"],
    "weno_transport": ["trainer=ddp_cpu"],
}
"""What is killed, one of them with two ranks; a new method adds a line."""
KILLS = int(os.environ.get("KD_MIL_KILLS", "2"))

LENGTH = int(os.environ.get("KD_MIL_KILLS", "1")) + 1
"""Epochs of each phase of the methods below."""
PHASES = {
    "d2l_mnist": [
        *("data=digits_mil", "data.max_train_bags=20", "data.max_test_bags=10", "encoder=tiny_cnn"),
        *(f"method.teacher_epochs={LENGTH}", f"method.student_epochs={LENGTH}", "method.rounds=2"),
    ],
    "ifkd_vgg": [
        *("data.image_size=32", "data.train_images=12", "data.val_images=4", "data.test_images=4"),
        *("instances_per_step=3", "segmenter.widths=[4,6,8]", f"method.teacher_epochs={LENGTH}"),
        *("method.switch.rule=periodic", "method.switch.student_reinit=fresh", f"method.switch.first={LENGTH}"),
        *(f"method.switch.period={LENGTH}", f"trainer.max_epochs={3 * LENGTH}"),
    ],
    "resolution_kd": [
        *("data=paired_images", "data.root=../pictures", "data.images_per_step=8", "method.network.stem=small"),
        *("method.network.width=8", "method.network.groups=4", f"method.teacher_epochs={LENGTH}"),
        *(f"method.student_epochs={LENGTH}", f"method.finetune_epochs={LENGTH}", "method.finetune=on", "cost_of=0"),
    ],
}
"""Methods with phases: a teacher and two generations of students; a switch of roles; teacher, student, last layer."""
PHASED = [("d2l_mnist", "cpu"), ("ifkd_vgg", "ddp_cpu"), ("resolution_kd", "cpu")]
if "KD_MIL_KILLS" in os.environ:
    PHASED = [(experiment, trainer) for experiment in PHASES for trainer in ("cpu", "ddp_cpu")]


def results(folder):
    """What must not depend on how often the run was killed."""
    files = [folder / "out" / "metrics.json", *sorted((folder / "out").glob("*.csv"))]
    assert len(files) >= 3
    return {path.name: path.read_text() for path in files}


def weights(folder):
    return read_checkpoint(folder / "out" / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_killed_at_random_moments_it_ends_where_an_undisturbed_run_does(experiment, tmp_path):
    command = [f"experiment={experiment}", *EXPERIMENTS[experiment], *TINY, f"trainer.max_epochs={2 * KILLS + 2}"]
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    kd_mil("run", *command, cwd=tmp_path / "undisturbed")
    run_and_kill(*command, cwd=tmp_path / "killed", kills=KILLS, seed=len(experiment))
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "trainer"), PHASED)
def test_killed_in_any_phase_it_ends_where_an_undisturbed_run_does(experiment, trainer, tmp_path):
    """Down to the last bit of teacher, student and the best of either, across the ends of the phases."""
    write_pictures(tmp_path / "pictures")
    command = [f"experiment={experiment}", f"trainer={trainer}", *PHASES[experiment], "hydra.run.dir=out"]
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    kd_mil("run", *command, cwd=tmp_path / "undisturbed")
    assert run_and_kill(*command, cwd=tmp_path / "killed", kills=LENGTH - 1, moments=(2, 3, 4), seed=len(experiment))
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    killed, undisturbed = weights(tmp_path / "killed"), weights(tmp_path / "undisturbed")
    assert list(killed) == list(undisturbed)
    for name, value in undisturbed.items():
        assert torch.equal(killed[name], value) or value.isnan().all(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "signum", "name", "code"),
    [
        ("cpu", signal.SIGTERM, "SIGTERM", STOPPED),
        ("ddp_cpu", signal.SIGTERM, "SIGTERM", STOPPED),
        ("cpu", signal.SIGINT, "Ctrl-C", 130),
    ],
)
def test_told_to_stop_it_says_so_and_the_same_command_resumes(trainer, signum, name, code, tmp_path):
    """SIGTERM, as schedulers send it, or Ctrl-C; the time spent so far is kept."""
    command = ["experiment=mil_max", f"trainer={trainer}", *TINY, "trainer.max_epochs=60"]
    process = start(*command, cwd=tmp_path)
    wait_for(process, "epoch ", times=3)
    os.kill(process.pid, signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"stopped by {name}: nothing lost, the same command resumes from its last finished epoch" in output
    assert "Traceback" not in output
    before = json.loads((tmp_path / "out" / "run.json").read_text())
    assert before["status"] == "interrupted"
    assert before["epochs"] >= 2
    process = start(*command, cwd=tmp_path)
    lines = wait_for(process, "epoch ")
    kill(process)
    assert any("continuing" in line for line in lines)
    epoch = int(lines[-1].split("epoch ")[1].split("/")[0])
    assert before["epochs"] <= epoch <= before["epochs"] + 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["wall_seconds"] > before["wall_seconds"]


@pytest.mark.slow
def test_under_slurm_the_job_goes_back_into_the_queue(tmp_path):
    """SIGUSR1 before the time limit: a stand-in for scontrol notes what it was asked."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    command = ["experiment=mil_max", "trainer=cpu", *TINY, "trainer.max_epochs=60"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    process = start(*command, cwd=tmp_path, PATH=path, SLURM_JOB_ID="17", SLURM_JOB_NAME="bash")
    wait_for(process, "epoch ", times=1)
    os.kill(process.pid, signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == STOPPED
    assert (tmp_path / "asked").read_text() == "requeue 17\n"


@pytest.mark.slow
def test_two_processes_do_not_share_a_directory(tmp_path):
    command = ["experiment=mil_max", "trainer=cpu", *TINY, "trainer.max_epochs=500"]
    first = start(*command, cwd=tmp_path)
    wait_for(first, "epoch ")
    second = kd_mil("run", *command, cwd=tmp_path, check=False)
    kill(first)
    assert second.returncode == 2
    assert "another process runs in" in second.stderr


class Hostile:
    """Unpickled, it would leave a file."""

    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_files_that_are_no_checkpoints_are_refused_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = {"state_dict": {"weight": torch.ones(1000)}, "model_card": {}}
    torch.save(good, "good.ckpt")
    whole = Path("good.ckpt").read_bytes()
    Path("truncated.ckpt").write_bytes(whole[: len(whole) // 2])
    Path("empty.ckpt").write_bytes(b"")
    Path("text.ckpt").write_text("weights: none")
    Path("pickle.ckpt").write_bytes(pickle.dumps(Hostile()))
    torch.save(good | {"more": Hostile()}, "hostile.ckpt")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    torch.save(torch.ones(3), "tensor.ckpt")
    with zipfile.ZipFile("archive.ckpt", "w") as archive:
        archive.writestr("readme", "a zip file, but not of torch")
    assert read_checkpoint("good.ckpt")["state_dict"]["weight"].sum() == 1000
    for name in ("truncated", "empty", "text", "pickle", "hostile", "foreign", "tensor", "archive"):
        with pytest.raises(UserError, match=f"checkpoint {name}.ckpt") as refused:
            read_checkpoint(f"{name}.ckpt")
        assert "\n" not in str(refused.value)
    assert not Path("harm").exists()


def test_who_may_read_a_checkpoint_is_for_the_umask_to_say(tmp_path):
    before = os.umask(0o027)
    try:
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
        write_json(tmp_path / "run.json", {})
        write_arrays(tmp_path / "tiles.npz", {"images": np.zeros(3)})
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("last.ckpt", "run.json", "tiles.npz"), "0o640")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        AtomicCheckpointIO().save_checkpoint({"epoch": lambda: 2}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}


def config(**settings):
    return {"ckpt_path": None, "seed": 0} | settings


def test_the_time_of_an_interrupted_run_is_kept(tmp_path):
    first = RunRecord(tmp_path, config())
    first.started -= 100
    first.write("running")
    second = RunRecord(tmp_path, config())
    second.write("running", epochs=3)
    second.write("finished")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["wall_seconds"] >= 100
    assert record["epochs"] == 3


def test_the_checkpoint_to_start_from_is_part_of_the_command(tmp_path):
    """The same command resumes from its own last epoch; a finished run of another start is not passed off as this."""
    given = config(ckpt_path=str(tmp_path / "other.ckpt"))
    out = tmp_path / "out"
    RunRecord(out, given).write("running")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "last.ckpt").touch()
    assert RunRecord(out, given).last_checkpoint == out / "checkpoints" / "last.ckpt"
    RunRecord(out, given).write("finished")
    assert RunRecord(out, given).finished
    for other in (config(ckpt_path=str(tmp_path / "third.ckpt")),):
        with pytest.raises(UserError, match="did not start from"):
            RunRecord(out, other)


def test_the_record_tells_where_training_really_started(tmp_path):
    """A run that was killed before its first epoch ended starts anew; and one may start from another's in its place."""
    out, given = tmp_path / "out", config(ckpt_path=str(tmp_path / "first.ckpt"))
    RunRecord(out, given).write("running")
    assert RunRecord(out, config()).started_from is None, "no checkpoint of that run exists"
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "last.ckpt").touch()
    assert RunRecord(out, config()).started_from == given["ckpt_path"], "it continues that run"
    longer = config(ckpt_path=str(out / "checkpoints" / "best.ckpt"), epochs=9)
    assert RunRecord(out, longer).started_from == longer["ckpt_path"]


def test_an_interrupted_run_goes_on_with_any_number_of_processes(tmp_path):
    """The trainer that says so is another, but not another number of epochs."""
    ranks = {"devices": 2, "strategy": {"_target_": "DDPStrategy"}, "accelerator": "cpu"}
    alone = config(trainer={"max_epochs": 3, "devices": 1})
    RunRecord(tmp_path, config(trainer=alone["trainer"] | ranks)).write("running", processes=2)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert RunRecord(tmp_path, alone).last_checkpoint is not None
    with pytest.raises(UserError, match="another configuration"):
        RunRecord(tmp_path, config(trainer={"max_epochs": 9, "devices": 1}))


def test_what_is_overwritten_cannot_be_gone_on_from(tmp_path):
    own = config(ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    with pytest.raises(UserError, match="give one of the two"):
        RunRecord(tmp_path, own, overwrite=True)


@pytest.mark.parametrize("content", ["", "[]", '{"status": "fin'])
def test_a_damaged_record_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run.json is damaged"):
        RunRecord(tmp_path, config())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"status": 3}, "status is 3"),
        ({"wall_seconds": "long"}, "wall_seconds is 'long'"),
        ({"processes": [1]}, "proc"),
    ],
)
def test_a_record_with_values_of_another_kind_is_one_line(tmp_path, content, complaint):
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"run.json is damaged \({complaint}"):
        RunRecord(tmp_path, config())


@pytest.mark.parametrize("content", [None, "", "[1]", '{"test/model/bag_loss": "low"}', "{" * 100_000])
def test_damaged_metrics_are_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"metrics.json is (missing|damaged)") as refused:
        read_metrics(tmp_path / "metrics.json")
    assert "\n" not in str(refused.value)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_command_changes_nothing_in_the_folder(tmp_path, monkeypatch, capsys):
    """Neither one of another configuration nor one whose settings are wrong."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    RunRecord(out, config()).write("finished")
    (out / ".hydra").mkdir()
    (out / ".hydra" / "config.yaml").write_text("seed: 0")
    before = snapshot(out)
    for wrong in ("seed=5", "seed=-1", "monitor=nothing", "optimizer.lr=-3"):
        monkeypatch.setattr("sys.argv", ["run", "experiment=mil_max", *TINY, "trainer=cpu", wrong])
        with pytest.raises(SystemExit):
            main()
        assert snapshot(out) == before
    said = capsys.readouterr().err
    assert said.count("holds a run of another configuration") == 3
    assert "seed=-1" in said


def test_a_process_that_waited_sees_that_the_run_is_finished(tmp_path):
    first, second = RunRecord(tmp_path, config()), RunRecord(tmp_path, config())
    assert not second.finished
    first.lock()
    first.write("running")
    waiting = threading.Thread(target=second.lock)
    waiting.start()
    first.write("finished", monitor="val/model/bag_loss")
    first._lock.release()
    waiting.join()
    assert second.finished
    assert second.monitor == "val/model/bag_loss"


def test_only_a_run_at_work_is_noted_as_interrupted(tmp_path):
    record = RunRecord(tmp_path, config())
    record.interrupt()
    assert not record.path.exists()
    for status, after in (("running", "interrupted"), ("finished", "finished")):
        record.write(status)
        record.interrupt()
        assert json.loads(record.path.read_text())["status"] == after
