"""Which aggregators can teach WENO's student, and with which of their scores."""

from torch import nn

from kd_mil.core.errors import UserError
from kd_mil.models.aggregators.pooling import Mean


def can_recompute(aggregator: nn.Module, attention_source: str, attention_from: str, is_learned: bool) -> bool:
    """Whether attention is recomputed instance by instance, rather than taken from the bank.

    `is_learned` says that the student learns attention; if not, it may say nothing, as that of mean pooling.

    Raises:
        UserError: the aggregator has no such scores.
    """
    if isinstance(aggregator, Mean) and is_learned:
        raise UserError(
            "mean pooling has no attention to learn from: choose another aggregator as WENO's teacher, "
            "or method.pseudo_labels=bag_of_one or transport"
        )
    name, needed = type(aggregator).__name__, f"{attention_source}_logits"
    if attention_source == "instance" and not hasattr(aggregator, needed):
        raise UserError(f"{name} has no instance stream: use method.attention_source=attention")
    if attention_from == "recompute" and not hasattr(aggregator, needed):
        raise UserError(
            f"{name} has no {needed}(features) outside a bag, so its scores cannot be recomputed: "
            "use method.attention_from=bank"
        )
    return attention_from == "recompute"
