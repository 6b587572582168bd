"""What a confident student tells its teacher: where to look, in place of what to leave out.

StudentFeedback(weight=0.5).loss(attention_logits, student_probs, sizes, labels)   # ()
"""

from dataclasses import dataclass

from torch import Tensor

from kd_mil.core.checks import above, at_least, share
from kd_mil.core.errors import UserError
from kd_mil.methods.weno.ramp import ramped
from kd_mil.models.segments import segment_ids, segment_logsumexp, segment_sum


@dataclass(frozen=True)
class StudentFeedback:
    """Draw the teacher's attention in positive bags to what the student is sure is positive.

    Not part of the WENO paper. That filtered predictions of the instances train the bag branch is what is known of
    DMKD (2025, arXiv 2505.12074); the filter and the loss are ours.

    Raises:
        UserError: a setting outside its range, or thresholds that cross.
    """

    weight: float = 0.0
    """Of the loss beside 1 for the bag; 0 gives no feedback."""
    low: float = 0.1
    """The student is sure of an instance whose probability is at most this,"""
    high: float = 0.9
    """or at least this."""
    temperature: float = 0.5
    """Of the student's probabilities."""
    ramp: float = 0.1
    """Share of the run's epochs in which the weight grows from 0."""

    def __post_init__(self) -> None:
        at_least("method.feedback.weight", self.weight, 0)
        share("method.feedback.low", self.low)
        share("method.feedback.high", self.high)
        share("method.feedback.ramp", self.ramp)
        above("method.feedback.temperature", self.temperature)
        if self.low >= self.high:
            raise UserError(f"method.feedback.low={self.low} must be below method.feedback.high={self.high}")

    def weight_in(self, epoch: int, run_epochs: int | None) -> float:
        """The weight in an epoch (from 0); raises `UserError` as `ramped`."""
        return ramped(self.weight, self.ramp, epoch, run_epochs, "method.feedback")

    def loss(self, attention_logits: Tensor, student_probs: Tensor, sizes: Tensor, labels: Tensor) -> Tensor:
        """Mean over B bags of KL(softmax(p / t) || softmax(attention)), both over what the student is sure of.

        It is 0 for negative bags, which have nothing to look at, and where the student is sure of nothing.

        Args:
            attention_logits: (N,) of the teacher.
            student_probs: (N,) p, without gradient.
            sizes: (B,) of the bags.
            labels: (B,) of the bags.
        """
        positive = (labels > 0)[segment_ids(sizes, len(student_probs))]
        sure = positive & ((student_probs >= self.high) | (student_probs <= self.low))
        counts = segment_sum(sure.float(), sizes).long()
        counts = counts[counts > 0]
        if len(counts) == 0:
            return 0 * attention_logits.sum()
        target = log_softmax(student_probs[sure] / self.temperature, counts)
        return (target.exp() * (target - log_softmax(attention_logits[sure], counts))).sum() / len(sizes)


def log_softmax(logits: Tensor, sizes: Tensor) -> Tensor:
    """Logarithm of the softmax over each bag of logits (N,)."""
    return logits - segment_logsumexp(logits, sizes).repeat_interleave(sizes, output_size=len(logits))
