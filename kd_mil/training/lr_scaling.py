"""Learning rates for several processes: they average one update, so there are fewer updates."""

from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import Optimizer

from kd_mil.core.checks import one_of

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

RULES = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""Power of the number of processes."""


def scaled(new_optimizer: OptimizerFactory, rule: str, processes: int) -> OptimizerFactory:
    """The factory with its learning rates multiplied by `processes` to the power of the rule.

    `linear` is the rule of Goyal et al. 2017 for SGD, `sqrt` the usual one for Adam; neither is in the papers.

    Raises:
        UserError: an unknown rule.
    """
    one_of("scale_lr", rule, RULES)
    factor = processes ** RULES[rule]
    if factor == 1:
        return new_optimizer

    def make(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = new_optimizer(parameters)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        return optimizer

    return make
