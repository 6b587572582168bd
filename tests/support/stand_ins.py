"""What callbacks see of a trainer and a method, without training."""

from types import SimpleNamespace

from lightning.pytorch.loggers import TensorBoardLogger


class Method(SimpleNamespace):
    """A method's outside: roles, tables, and what it logs."""

    device = "cpu"

    def log(self, name, value, **_):
        self.__dict__.setdefault("logged", {})[name] = float(value)

    def log_dict(self, values, **_):
        for name, value in values.items():
            self.log(name, value)


def trainer_of(bags, rank=0, log_dir=None, epoch=0, running="fit"):
    loggers = [] if log_dir is None else [TensorBoardLogger(log_dir, name="", version="")]
    return SimpleNamespace(
        is_global_zero=rank == 0,
        datamodule=SimpleNamespace(bags=bags),
        loggers=loggers,
        current_epoch=epoch,
        max_epochs=4,
        state=SimpleNamespace(fn=running),
        callback_metrics={},
    )


def events(log_dir):
    """Tags of everything written to TensorBoard in a folder, by kind."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(log_dir), size_guidance={"histograms": 0})
    accumulator.Reload()
    return accumulator
