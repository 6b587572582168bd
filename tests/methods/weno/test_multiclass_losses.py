import torch

from kd_mil.methods.weno.losses import class_student_loss, class_targets, student_loss


def test_targets_by_hand():
    """An instance is of its bag's class as far as y says, negative otherwise; of negative bags it is negative."""
    targets = class_targets(torch.tensor([0.25, 1.0, 0.0]), torch.tensor([2, 1, 0]), 3)
    assert targets.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [1, 0, 0]]


def test_with_two_classes_it_is_the_loss_of_the_paper():
    torch.manual_seed(0)
    logits, y = torch.randn(50, 2), torch.rand(50)
    labels = torch.randint(0, 2, (50,))
    y = y * labels
    targets = class_targets(y, labels, 2)
    torch.testing.assert_close(class_student_loss(logits, targets, 0.2), student_loss(logits, y, 0.2))
