"""A folder that `kd_mil.predict` wrote, read again: the table of slides, and of each its tiles and its panel."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kd_mil.core.checks import check_id
from kd_mil.core.errors import UserError
from kd_mil.core.run_files import read_json
from kd_mil.core.suggestions import did_you_mean
from kd_mil.core.tables import read_results
from kd_mil.prediction.panels import Panel, panel_path, read_panel

PROBABILITY = re.compile(r"(.+?)_prob(_.+)?")
"""A column of a role's probability, or of that of one of more than two classes."""
READERS = {".parquet": pd.read_parquet, ".csv": pd.read_csv}


@dataclass(frozen=True)
class PredictedSlide:
    """One slide of a folder of predictions."""

    folder: Path
    slide_id: str
    row: pd.Series
    """Its line of `slides.csv`."""
    roles: tuple[str, ...]
    decides: str | None = None
    """The role whose decision counts."""

    @cached_property
    def tiles(self) -> pd.DataFrame:
        """The table of its N tiles: `x, y, tile_size_level0` in level-0 pixels (-1: not known), `{role}_prob`, ...

        Raises:
            UserError: the slide was not predicted, or its table is damaged.
        """
        for suffix, read in READERS.items():
            path = self.folder / "instances" / f"{self.slide_id}{suffix}"
            if path.is_file():
                try:
                    return read(path)
                except (OSError, ValueError) as error:
                    raise UserError(f"{path} is damaged ({error}): predict the slide again") from error
        note = self.row.get("note")
        reason = f": {note}" if isinstance(note, str) else ""
        raise UserError(f"{self.folder}: slide {self.slide_id!r} has no prediction{reason}")

    @cached_property
    def panel(self) -> Panel:
        """Its thumbnail, and what its page shows.

        Raises:
            UserError: it has none: the slide was not predicted, or the positions of its tiles are not known.
        """
        return read_panel(panel_path(self.folder, self.slide_id))

    def role(self, name: str | None) -> str:
        """The role asked for; None = the one whose decision counts.

        Raises:
            UserError: there is no such role.
        """
        return role_of(self.roles, name or self.decides, self.folder)


class Predictions:
    """A folder that `kd_mil.predict` wrote.

    Args:
        folder: with `slides.csv`.

    Examples:
        >>> predictions = Predictions("predictions")  # doctest: +SKIP
        >>> predictions["case_1"].tiles, predictions.slides["student_prob"]  # doctest: +SKIP

    Raises:
        UserError: it has no `slides.csv`, a damaged one, or one with an id that cannot name a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "slides.csv"
        try:
            self.slides: pd.DataFrame = read_results(path, "slide_id").set_index("slide_id")
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist: give the output folder of kd_mil.predict") from error
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}): predict into the folder again") from error
        for slide_id in self.slides.index:
            check_id(slide_id, str(path))
        found = (PROBABILITY.fullmatch(name) for name in self.slides.columns)
        self.roles = tuple(dict.fromkeys(match[1] for match in found if match))
        decided = [role for role in self.roles if f"{role}_decision" in self.slides]
        self.decides: str | None = decided[-1] if decided else None

    def __iter__(self) -> Iterator[str]:
        """Ids of the slides that were predicted."""
        column = f"{self.decides}_decision"
        return iter(self.slides.index[self.slides[column].notna()] if column in self.slides else [])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, slide_id: str) -> PredictedSlide:
        """One slide.

        Raises:
            UserError: there is no such slide.
        """
        if slide_id not in self.slides.index:
            raise UserError(f"{self.folder}: no slide {slide_id!r}; {did_you_mean(slide_id, list(self.slides.index))}")
        return PredictedSlide(self.folder, slide_id, self.slides.loc[slide_id], self.roles, self.decides)

    def role(self, name: str | None) -> str:
        """The role asked for; None = the one whose decision counts.

        Raises:
            UserError: there is no such role.
        """
        return role_of(self.roles, name or self.decides, self.folder)

    def scored(self, role: str | None = None, labels: pd.Series | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (B,) of the positive class, and whether the slides (B,) are positive, of those with a label.

        Args:
            role: whose; None = the one whose decision counts.
            labels: names of classes by slide id; None = the column `label` of `slides.csv`.

        Raises:
            UserError: no labels, none of the slides has one, one that is no class, or more than two classes.
        """
        role = self.role(role)
        if f"{role}_prob" not in self.slides:
            raise UserError(f"{self.folder}: {role} tells more than two classes apart")
        if labels is None and "label" not in self.slides:
            raise UserError(f"{self.folder}: no labels: give them, or predict a list with a column label")
        known = (self.slides["label"] if labels is None else labels.reindex(self.slides.index)).dropna()
        table = self.slides.loc[known.index].assign(truth=known.astype(str)).dropna(subset=[f"{role}_prob"])
        if table.empty:
            raise UserError(f"{self.folder}: none of the predicted slides has a label")
        for name in sorted(set(table["truth"]) - set(self.class_names)):
            raise UserError(f"{self.folder}: label {name!r} is no class of the model: {', '.join(self.class_names)}")
        probs = table[f"{role}_prob"].to_numpy(float)
        return probs, (table["truth"] == self.class_names[1]).to_numpy()

    @cached_property
    def class_names(self) -> list[str]:
        """Of the model that predicted, the negative one first.

        Raises:
            UserError: `model.json` is not there, or damaged.
        """
        names = read_json(self.folder / "model.json").get("class_names")
        if not isinstance(names, list) or len(names) < 2:
            raise UserError(f"{self.folder / 'model.json'} is damaged (class_names is {names!r:.60}): predict again")
        return [str(name) for name in names]


def role_of(roles: tuple[str, ...], name: str | None, folder: Path) -> str:
    """The role of that name; None = the last.

    Raises:
        UserError: there is no such role, or none at all.
    """
    if not roles:
        raise UserError(f"{folder}: no slide was predicted")
    if name is not None and name not in roles:
        raise UserError(f"{folder}: no role {name!r}; there are {', '.join(roles)}")
    return name or roles[-1]
