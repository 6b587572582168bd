"""The checkpoints of a run: they name each other relative to their folder, so that a run may be moved or copied."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint, whose state holds names of files instead of absolute paths.

    Lightning forgets the best score when the directory changes, so that the first resumed epoch would always win; here
    the folder that a run resumes in is the folder of its files, wherever it lies now.
    """

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        names = {key: state[key] and Path(state[key]).name for key in PATHS}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return state | names | {"best_k_models": best, "dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath))
        paths = {key: state_dict[key] and str(here / Path(state_dict[key]).name) for key in PATHS}
        best = {str(here / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath})


class BestCheckpoint(MovableCheckpoint):
    """The checkpoint that is tested; a run that starts from a checkpoint of another folder takes its best epoch along.

    Args:
        select: the epoch that is kept: the `best` by the monitor, or the `last`, where validation is too small to tell.
        monitor: validation metric.
        **settings: as Lightning's.

    Raises:
        UserError: an unknown `select`; or the best checkpoint does not lie beside the one that the run starts from.
    """

    def __init__(self, select: str = "best", monitor: str | None = None, **settings: Any) -> None:
        one_of("select", select, ("best", "last"))
        super().__init__(monitor=monitor if select == "best" else None, **settings)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["callbacks"].get(self.state_key)
        if state and state["best_model_path"]:
            self.take_along(Path(state["best_model_path"]).name, Path(str(trainer.ckpt_path)).parent)

    def take_along(self, name: str, source: Path) -> None:
        """Copy the best checkpoint from the folder of the checkpoint that the run starts from, where it is another."""
        earlier, here = source / name, Path(str(self.dirpath))
        if not earlier.is_file():
            raise UserError(f"the run to resume selected {earlier}, which is gone: put it back, or start anew")
        if source.resolve() != here.resolve():
            with atomic_path(here / name) as partial:
                shutil.copyfile(earlier, partial)


def require_selection(trainer: Trainer) -> None:
    """Refuse to train without the callback that keeps what is tested: the last epoch would pass for the best.

    Raises:
        UserError: it was taken away.
    """
    if not isinstance(trainer.checkpoint_callback, BestCheckpoint):
        raise UserError(
            "callbacks.checkpoint keeps the checkpoint that is tested, and is needed: select=last tests the last epoch"
        )
