import re

import torch

from kd_mil.training.progress import Progress
from tests.support.stand_ins import Method, trainer_of
from tests.support.tiny import fit
from tests.support.tiny_images import tiny_glands, tiny_ifkd


def test_an_epoch_is_one_line(capsys):
    trainer = trainer_of(None, epoch=1)
    trainer.callback_metrics = {
        "val/rnn/bag_auroc": torch.tensor(float("nan")),
        "loss/teacher": torch.tensor(0.51),
        "val/teacher/bag_auroc": torch.tensor(0.9),
        "val/student/bag_auroc": torch.tensor(0.75),
        "val/student/instance_auroc": torch.tensor(0.5),
        "val/student/bag_loss": torch.tensor(0.3),
        "val/teacher/attention/instance_auroc": torch.tensor(0.6),
    }
    Progress().on_train_epoch_end(trainer, Method())
    [line] = capsys.readouterr().out.splitlines()
    areas = "loss/teacher 0.5100  bag AUROC teacher 0.900, student 0.750  instance AUROC student 0.500"
    assert line.startswith(f"epoch 2/4  {areas}  ")
    assert line.endswith(" s")


def test_other_ranks_are_silent(capsys):
    Progress().on_train_epoch_end(trainer_of(None, rank=1), Method())
    assert not capsys.readouterr().out


def test_losses_of_a_phase_that_is_over_are_not_repeated(capsys):
    """IFKD: two epochs of the teacher, then the student."""
    fit(tiny_ifkd(), tiny_glands(), epochs=4, enable_progress_bar=True, callbacks=[Progress()])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert ["loss/teacher" in line for line in lines] == [True, True, False, False]
    assert ["loss/student" in line for line in lines] == [False, False, True, True]
    assert all(re.search(r"image AUROC .*\bteacher 0\.", line) for line in lines)
