"""The data module of a run, on bags or on images: what commands and methods rely on."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning as L
import pandas as pd

from kd_mil.core.atomic import atomic_path
from kd_mil.core.checks import harmless
from kd_mil.core.errors import UserError


class DistillationData(L.LightningDataModule):
    """The data module of a run, on bags or on images: what commands and methods rely on."""

    kind: str | None = None
    """What it is made of, in the words of `Method.trains_on`; None: anything, which the method has to find out."""
    class_names: tuple[str, ...]
    left_out: Mapping[str, str] = MappingProxyType({})
    """Why, by name of what could not be read and is not used."""

    def setup(self, stage: str | None = None) -> None:
        """Load, check and place the data; safe to call again."""
        raise NotImplementedError

    @property
    def model_inputs(self) -> dict[str, Any]:
        """What a method must know of the data to build its networks: its keyword arguments, plain containers."""
        raise NotImplementedError

    @property
    def instance_source(self) -> dict[str, Any]:
        """How the instances were cut out of slides, as plain JSON values; empty where they were not."""
        return {}

    def fingerprint(self) -> str:
        """Hash of the data and the split."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """How many bags or images train, val and test hold."""
        raise NotImplementedError

    def check_processes(self, processes: int) -> None:
        """Refuse more processes than a part to evaluate has bags or images, before anything is trained.

        Raises:
            UserError: naming the part.
        """
        counts = self.counts()
        for part in ("val", "test"):
            if counts[part] < processes:
                raise UserError(
                    f"the {part} part has {counts[part]} bags or images for {processes} processes: "
                    "use fewer devices, or give it more"
                )

    def split_rows(self) -> list[dict[str, str]]:
        """The split as used: `bag_id` or `image_id`, `case_id`, `label`, `split`, and `content`, a hash, of each."""
        raise NotImplementedError

    def write_tables(self, directory: Path) -> None:
        """Write `splits.csv` and, where something was left out, `left_out.csv` (`name,message`)."""
        self.write_split_file(directory / "splits.csv")
        (directory / "left_out.csv").unlink(missing_ok=True)
        if self.left_out:
            with atomic_path(directory / "left_out.csv") as path:
                rows = [(name, harmless(message)) for name, message in self.left_out.items()]
                pd.DataFrame(rows, columns=["name", "message"]).to_csv(path, index=False)

    def write_split_file(self, path: Path) -> None:
        """Write the split as used, fit to be read back as `split_file`."""
        with atomic_path(path) as temporary:
            pd.DataFrame(self.split_rows()).to_csv(temporary, index=False)
