import torch

from kd_mil.callbacks.progress import Progress
from tests.callbacks.stand_ins import Method, trainer_of


def test_an_epoch_is_one_line(capsys):
    trainer = trainer_of(None, epoch=1)
    trainer.callback_metrics = {
        "loss/teacher": torch.tensor(0.51),
        "val/teacher/bag_auroc": torch.tensor(0.9),
        "val/student/bag_auroc": torch.tensor(0.75),
        "val/student/instance_auroc": torch.tensor(0.5),
        "val/student/bag_loss": torch.tensor(0.3),
    }
    Progress().on_train_epoch_end(trainer, Method())
    [line] = capsys.readouterr().out.splitlines()
    areas = "loss/teacher 0.5100  bag AUROC teacher 0.900, student 0.750  instance AUROC student 0.500"
    assert line.startswith(f"epoch 2/4  {areas}  ")
    assert line.endswith(" s")


def test_other_ranks_are_silent(capsys):
    Progress().on_train_epoch_end(trainer_of(None, rank=1), Method())
    assert not capsys.readouterr().out
