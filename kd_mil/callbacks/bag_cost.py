"""What it costs to predict a bag, counted when the test ends."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from kd_mil.core.checks import at_least
from kd_mil.data.bags import Bags
from kd_mil.evaluation.cost import call_cost


class BagCost(Callback):
    """Count parameters, operations and memory of predicting the test bag of median size, all roles together.

    Args:
        latency_repeats: timed predictions; 0 leaves the time out.

    Raises:
        UserError: a negative number.
    """

    def __init__(self, latency_repeats: int = 0) -> None:
        at_least("callbacks.cost.latency_repeats", latency_repeats, 0)
        self.latency_repeats = latency_repeats
        self.costs: dict[str, float] = {}
        """`instances` of the bag, `parameters`, `gflop`, `peak_mib` and, where timed, `ms`."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data, method = cast(Any, trainer).datamodule, cast(Any, pl_module)
        bags: Bags = data.bags
        tested = data.splits.test
        bag = tested[bags.sizes[tested].argsort(stable=True)[len(tested) // 2]]
        positions = bags.instances_of(bag[None])
        pieces = [
            bags.instances[piece.to(bags.device)] for piece in positions.split(data.loading.eval_instances_per_step)
        ]
        cost = call_cost(lambda: method.predict_pieces(pieces), method.device, self.latency_repeats)
        found = {"instances": len(positions), "parameters": sum(weights.numel() for weights in method.parameters())}
        self.costs = found | {name: value for name, value in cost._asdict().items() if value is not None}
