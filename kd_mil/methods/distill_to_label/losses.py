"""Losses of Distill-to-Label (Thiagarajan et al. 2019, arXiv 1907.12926): consistency, entropy and distillation.

The paper's Bernoulli quantities are those of a softmax over two logits, and are written for any number of classes here.
All start from logits, so that no probability is ever clamped.

    divergence(teacher_logits, student_logits, temperature=2.0).mean()
"""

import torch.nn.functional as F
from torch import Tensor


def consistency(target_logits: Tensor, logits: Tensor, detach_target: bool = True) -> Tensor:
    """Cross-entropy of a disturbed bag's prediction with the clean one as target: L_n and L_delta of Eq. 3.

    Args:
        target_logits: (B, C) of the clean bags.
        logits: (B, C) of the same bags, disturbed.
        detach_target: the target is a constant, as in virtual adversarial training; False lets it move too.

    Returns:
        (B,), at least the entropy of the target.
    """
    target = target_logits.detach() if detach_target else target_logits
    return -(target.softmax(1) * F.log_softmax(logits, 1)).sum(1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy (N,) in nats of predictions with logits (N, C): L_e of Eq. 3 and 5."""
    log_probs = F.log_softmax(logits, 1)
    return -(log_probs.exp() * log_probs).sum(1)


def divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """H(P^t, P^s) of Eq. 6: KL divergence (N,) of the student from the teacher, both softened as in Eq. 4.

    Args:
        teacher_logits: (N, C), without gradient.
        student_logits: (N, C).
        temperature: tau > 0 that divides the logits.
    """
    teacher, student = (F.log_softmax(logits / temperature, 1) for logits in (teacher_logits, student_logits))
    return (teacher.exp() * (teacher - student)).sum(1)
