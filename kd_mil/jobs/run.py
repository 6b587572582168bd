"""One run: train, select on validation, test once."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from kd_mil.cli.configuration import configuration_files, write_configuration
from kd_mil.cli.settings import check_optimizer, check_value
from kd_mil.core.atomic import remove_all_unfinished
from kd_mil.core.checkpoints import read_checkpoint
from kd_mil.core.checks import at_least
from kd_mil.core.errors import UserError
from kd_mil.core.machine.compiling import call_as_written, compile_parts, require_compiler
from kd_mil.core.machine.devices import device_name, use_accelerator
from kd_mil.core.machine.gpus import stop_asking_nvml
from kd_mil.core.machine.threads import use_threads
from kd_mil.core.records import RunRecord
from kd_mil.core.run_files import read_record, write_json
from kd_mil.core.version import __version__
from kd_mil.data.changes import refuse_changed_data
from kd_mil.data.distillation_data import DistillationData
from kd_mil.jobs.before_training import check_before_training, check_together, choose_monitor
from kd_mil.methods.base.bag_targets import train_on_bags
from kd_mil.methods.base.method import Method
from kd_mil.training.final_table import print_results, show_finished
from kd_mil.training.keep_time import KeepTime
from kd_mil.training.results import log_hyperparameters, measured_while_training
from kd_mil.training.selection import require_selection
from kd_mil.training.stop_on_signal import StopOnSignal

OF_THE_PROCESS = ("threads", "compile")
"""Settings under `trainer` that its class does not take."""


def main(config: DictConfig) -> float | None:
    """One run as design and configuration say; returns the validation score of what is tested."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    configuration = configuration_files(config)
    directory = Path(plain["run_dir"]).absolute()
    record = RunRecord(directory, plain, overwrite=config.overwrite)
    use_accelerator(plain["trainer"]["accelerator"])
    check_optimizer(config.optimizer)
    check_value("trainer.threads", plain["trainer"]["threads"], int | None)
    use_threads(plain["trainer"]["threads"], record.earlier_threads)
    check_compilation(plain["trainer"])
    L.seed_everything(config.seed, workers=True, verbose=False)
    new_method = instantiate(config.method, _convert_="all")
    data: DistillationData = instantiate(config.data, _convert_="all")
    check_together(config.monitor, new_method.func, data)
    data.setup()
    if record.has_trained:
        refuse_changed_data(directory / "splits.csv", pd.DataFrame(data.split_rows()))
    if record.finished:
        return show_finished(record)
    ask_teacher(data, plain)
    L.seed_everything(config.seed, workers=True, verbose=False)  # whether slides had to be read or predicted first
    method = built(new_method, data, plain)
    choose_monitor(config, method, of_cases=getattr(data, "reported_cases", None) is not None)
    shorten_phases(config, method)
    last = directory / "checkpoints" / "last.ckpt"
    trainer = build_trainer(config, [StopOnSignal(last, record.interrupt), KeepTime(record.write)])
    if trainer.is_global_zero:
        record.lock()
        if record.finished:
            return show_finished(record, trainer.world_size)
    require_selection(trainer)
    start = starting_point(config, record)
    check_before_training(method, start, trainer)
    data.check_processes(trainer.world_size)
    if trainer.is_global_zero:
        begin(record, configuration, facts(plain, data, trainer))
        data.write_tables(directory)

    trainer.fit(method, datamodule=data, ckpt_path=start)
    epochs = trainer.current_epoch
    metrics = evaluate(trainer, method, data)
    if trainer.is_global_zero:
        metrics |= costs_of_slides(method, data, config.cost_of)
        best = best_checkpoint(trainer)
        tested_epoch = read_checkpoint(best)["epoch"] + 1
        metrics |= measured_while_training(trainer, tested_epoch)
        write_json(directory / "metrics.json", metrics)
        log_hyperparameters(trainer, plain, metrics)
        chosen = {
            "monitor": config.monitor,
            "monitor_mode": config.monitor_mode,
            "select": config.select,
            "selected_by": method.selected_by,
        }
        record.write("finished", best_checkpoint=best, epochs=epochs, tested_epoch=tested_epoch, **chosen)
        print_results(metrics, directory, read_record(record.path))
    return metrics.get(config.monitor)


def check_compilation(trainer: Mapping[str, Any]) -> None:
    """Refuse to compile where that cannot be done.

    Raises:
        UserError: no compiler, or several processes.
    """
    check_value("trainer.compile", trainer["compile"], bool)
    if not trainer["compile"]:
        return
    if trainer["devices"] not in (1, "1") or trainer.get("num_nodes", 1) != 1:
        raise UserError(
            "trainer.compile=true: for trainer.devices=1 alone, ranks look at each other's rows; leave it out"
        )
    require_compiler(on_gpu=trainer["accelerator"] != "cpu" and torch.cuda.is_available())


def ask_teacher(data: DistillationData, plain: Mapping[str, Any]) -> None:
    """Let the trained model that the data name, if they do, predict what the run learns from."""
    if getattr(data, "teacher", None) is not None:
        from kd_mil.jobs.teach import teach  # and all that reads slides, which other runs start without

        teach(data, plain)


def costs_of_slides(method: Method, data: DistillationData, count: int) -> dict[str, float]:
    """`measured_costs` of so many test slides."""
    if count == 0:
        return {}
    from kd_mil.prediction.slide_cost import measured_costs

    return measured_costs(method, data, count)


def built(new_method: Any, data: DistillationData, plain: dict[str, Any]) -> Method:
    """The method for these data, with its model card."""
    if plain["trainer"]["compile"]:
        new_method = compile_parts(new_method)
    method: Method = new_method(**data.model_inputs)
    method.model_card = model_card(plain, data)
    train_on_bags(method, data, plain)
    return method


def begin(record: RunRecord, configuration: Mapping[str, str], known: Mapping[str, Any]) -> None:
    """The first changes in the folder of a run, whose lock this process holds."""
    if record.overwrite:
        forget(record.directory)
    remove_all_unfinished(record.directory, below=True)
    write_configuration(record.directory, configuration)
    record.write("running", **known)


def build_trainer(config: DictConfig, more: Sequence[L.Callback] = ()) -> L.Trainer:
    """Trainer with the callbacks and loggers of the configuration, and more callbacks."""
    stop_asking_nvml()
    callbacks = [instantiate(one, _convert_="all") for one in config.callbacks.values() if one is not None]
    callbacks += more
    loggers = [instantiate(one, _convert_="all") for one in config.logger.values() if one is not None]
    plain: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    settings = {key: value for key, value in plain.items() if key not in OF_THE_PROCESS}
    return instantiate(settings, _convert_="all", callbacks=callbacks, logger=loggers)


def shorten_phases(config: DictConfig, method: Method) -> None:
    """Where `phase_epochs` is set, phases of that length take the place of `trainer.max_epochs`."""
    if config.phase_epochs is not None and not method.phases.undivided:
        at_least("phase_epochs", config.phase_epochs, 1)
        method.shorten_phases(config.phase_epochs)
        config.trainer.max_epochs = -1


def starting_point(config: DictConfig, record: RunRecord) -> str | None:
    """Checkpoint to resume from: the last of an interrupted run of the same command here, else the one asked for."""
    last = None if config.overwrite else record.last_checkpoint
    if last is not None:
        print(f"continuing the interrupted run in {record.directory}")
        return str(last)
    return None if config.ckpt_path is None else str(config.ckpt_path)


def evaluate(trainer: L.Trainer, method: Method, data: DistillationData) -> dict[str, float]:
    """Metrics of the checkpoint to test (`select`): validation again, then test, once; nothing is compiled any more."""
    call_as_written(method)
    best = best_checkpoint(trainer)
    method.scores.clear()  # of the last epoch, which need not be the one tested
    [val] = trainer.validate(method, datamodule=data, ckpt_path=best, verbose=False)
    [test] = trainer.test(method, datamodule=data, ckpt_path=best, verbose=False)
    logged = {**val, **test}
    return logged | {name: value for name, value in method.exact_scores.items() if name in logged}


def best_checkpoint(trainer: L.Trainer) -> str:
    """Path of the checkpoint that is tested: validation selected it, or it is the last."""
    chosen = cast(ModelCheckpoint, trainer.checkpoint_callback)
    scored = chosen.monitor is None or math.isfinite(_value(chosen.best_model_score))
    if not (chosen.best_model_path and scored):
        raise UserError(
            f"no checkpoint was selected: {chosen.monitor} was never defined in {trainer.current_epoch} epochs; "
            "does validation hold all classes?"
        )
    return chosen.best_model_path


def _value(score: torch.Tensor | None) -> float:
    return math.nan if score is None else float(score)


def model_card(plain: dict[str, Any], data: DistillationData) -> dict[str, Any]:
    """What it takes to build the method again and to read its output, in plain containers."""
    return {
        "kd_mil": __version__,
        "method": plain["method"],
        "model_inputs": data.model_inputs,
        "class_names": list(data.class_names),
        "instance_source": data.instance_source,
        "experiment": plain["experiment_name"],
        "select": plain["select"],
    }


def facts(plain: dict[str, Any], data: DistillationData, trainer: L.Trainer) -> dict[str, Any]:
    """Facts of run.json that are known before training."""
    return {
        "device": device_name(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "experiment": plain["experiment_name"],
        "overrides": list(HydraConfig.get().overrides.task),
        "seed": plain["seed"],
        "data_fingerprint": data.fingerprint(),
        "data_counts": data.counts(),
        "instance_source": data.instance_source,
    }


def forget(directory: Path) -> None:
    """Remove what an earlier run left in its own subdirectories."""
    for name in ("checkpoints", "tensorboard", "figures"):
        shutil.rmtree(directory / name, ignore_errors=True)
