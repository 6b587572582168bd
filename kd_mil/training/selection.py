"""The checkpoint that is tested, wherever the run goes on."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError


class BestCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint, except that a run continued in another directory keeps its best epoch so far.

    Lightning forgets the best score when the directory changes, so that the first resumed epoch would always win.

    Args:
        select: the epoch that is kept: the `best` by the monitor, or the `last`, where validation is too small to tell.
        monitor: validation metric.
        **settings: as Lightning's.

    Raises:
        UserError: an unknown `select`; or the best checkpoint of the earlier run is no longer where that run left it.
    """

    def __init__(self, select: str = "best", monitor: str | None = None, **settings: Any) -> None:
        one_of("select", select, ("best", "last"))
        super().__init__(monitor=monitor if select == "best" else None, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        earlier = Path(state_dict["best_model_path"])
        kept = Path(str(self.dirpath)) / earlier.name
        if state_dict["dirpath"] != self.dirpath and state_dict["best_model_path"]:
            if not earlier.is_file():
                raise UserError(f"the run to continue selected {earlier}, which is gone: put it back, or start anew")
            with atomic_path(kept) as partial:
                shutil.copyfile(earlier, partial)
            score = state_dict["best_model_score"]
            places = {
                "best_model_path": str(kept),
                "kth_best_model_path": str(kept),
                "best_k_models": {str(kept): score},
            }
            state_dict = state_dict | places | {"dirpath": self.dirpath}
        super().load_state_dict(state_dict)
