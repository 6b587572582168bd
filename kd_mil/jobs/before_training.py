"""What is refused, and decided, of a run before its first step."""

from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kd_mil.cards.moved_targets import with_targets_of_today
from kd_mil.cli.settings import check_value
from kd_mil.core.checkpoints import read_with_card, require_training_state
from kd_mil.core.errors import UserError
from kd_mil.data.distillation_data import DistillationData
from kd_mil.methods.base.method import Method


def check_together(monitor: str | None, made_by: Any, data: DistillationData) -> None:
    """Refuse, before data are read, what the class of the method cannot train on or be selected by.

    Raises:
        UserError: data of another kind, or a monitor that is none of the class's metrics.
    """
    check_value("monitor", monitor, str | None)
    if not (isinstance(made_by, type) and issubclass(made_by, Method)):
        return
    if data.kind not in (None, made_by.trains_on):
        chosen = HydraConfig.get().runtime.choices
        raise UserError(
            f"data={chosen['data']} is made of {data.kind}, but method={chosen['method']} trains on "
            f"{made_by.trains_on}: choose other data, or another experiment"
        )
    if monitor is not None:
        made_by.check_monitor_early(monitor)


def choose_monitor(config: DictConfig, method: Method, of_cases: bool = False) -> None:
    """Fill in what selects the checkpoint, and in which direction; cases do where the data report them (`of_cases`).

    Raises:
        UserError: the method may not be selected by it: instance labels and test data select nothing.
    """
    default = method.default_monitor
    config.monitor = config.monitor or (default.replace("/bag_", "/case_") if of_cases else default)
    method.check_monitor(config.monitor)
    if "/case_" in config.monitor and not of_cases:
        raise UserError(f"monitor={config.monitor}: no cases are scored, set data.report_by=case")
    config.monitor_mode = config.monitor_mode or ("min" if config.monitor.endswith("loss") else "max")


def check_before_training(method: Method, start: str | None, trainer: L.Trainer) -> None:
    """Find now what would otherwise end or spoil training: optimiser settings, a checkpoint of another method.

    Raises:
        UserError: the optimiser refuses its settings, its gradients would be clipped while they are scaled, or the
            checkpoint does not fit.
    """
    if trainer.precision == "16-mixed" and method.gradient_clip is not None:
        raise UserError(
            f"method.gradient_clip={method.gradient_clip} would clip the scaled gradients of "
            "trainer.precision=16-mixed: use bf16-mixed or 32-true, or method.gradient_clip=null"
        )
    try:
        method.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: {error}") from error
    if start is None:
        return
    checkpoint = read_with_card(start)
    require_training_state(checkpoint, start)
    card = {"select": "best"} | checkpoint["model_card"]
    card["method"] = with_targets_of_today(card["method"])
    for key in ("select", "method", "model_inputs", "class_names"):
        if card.get(key) != method.model_card[key]:
            raise UserError(f"checkpoint {start} belongs to another configuration: its {key} differs from this run's")
