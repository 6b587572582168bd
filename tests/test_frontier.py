"""The command `kd_mil.frontier` on real runs, from the teacher to the figure."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.support.command import kd_mil
from tests.support.tiny_images import write_pictures


@pytest.mark.slow
def test_commands_from_teacher_to_figure(tmp_path):
    write_pictures(tmp_path / "pictures")
    small = ["trainer=cpu", "data=paired_images", "data.root=pictures", "data.images_per_step=8"]
    small += ["method.network.width=8", "method.network.groups=8", "method.network.stem=small"]
    kd_mil(
        "run", "experiment=resolution_teacher", *small, "method.teacher_epochs=3", "hydra.run.dir=runs/t", cwd=tmp_path
    )
    teacher = "method.teacher_ckpt=runs/t/checkpoints/best.ckpt"
    student = [*small, "method.student_epochs=2", teacher, "data.student_downsample=4", "method.finetune=on"]
    student += ["method.finetune_epochs=1", "hydra.run.dir=runs/s"]
    kd_mil("run", "experiment=resolution_kd", *student, cwd=tmp_path)
    out = tmp_path / "runs" / "s"
    for name in ("metrics.json", "report.json", "splits.csv", "figures/confusion.png", "figures/pairs.png"):
        assert (out / name).is_file(), name
    metrics, images = json.loads((out / "metrics.json").read_text()), pd.read_csv(out / "images.csv")
    decided = np.where(images.student_prob_malignant > 0.5, "malignant", "benign")
    assert metrics["test/student/image_accuracy"] == pytest.approx((decided == images.label).mean())
    teacher_metrics = json.loads((tmp_path / "runs" / "t" / "metrics.json").read_text())
    assert metrics["test/teacher/image_loss"] == pytest.approx(teacher_metrics["test/teacher/image_loss"])
    cost = {name: one["cost"] for name, one in json.loads((out / "report.json").read_text())["roles"].items()}
    assert 14 < cost["teacher"]["gmac"] / cost["student"]["gmac"] < 18
    result = kd_mil("frontier", "runs=runs/*", "within=99", cwd=tmp_path)
    assert "cheapest network within 99 % of the teacher on validation: kd at 1/4" in result.stdout
    assert (tmp_path / "frontier" / "frontier.png").is_file()
    measured = metrics["cost/student/seconds"], metrics["cost/student/bytes"]
    assert min(measured) > 0
    assert 0 < metrics["cost/student/gmac"] < metrics["cost/teacher/gmac"] / 10
    wrong = ["data.seed=1", "hydra.run.dir=runs/w"]
    refused = kd_mil("run", "experiment=resolution_kd", *student[:-1], *wrong, cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "validation and test images differ" in refused.stderr
