"""MHIM-MIL (Tang et al., ICCV 2023): consistency between the student's bag embedding and its teacher's."""

import torch.nn.functional as F
from torch import Tensor


def consistency_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Soft-target cross-entropy, Eq. 9: softmax(teacher / t) against log-softmax(student), mean over the bags.

    Args:
        student: (B, E) bag embedding of the masked bag.
        teacher: (B, E) bag embedding of the whole bag, without gradient.
        temperature: t of the teacher.
    """
    targets = (teacher.detach() / temperature).softmax(1)
    return -(targets * F.log_softmax(student, 1)).sum(1).mean()
