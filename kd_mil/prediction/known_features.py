"""Feature files of a prediction: known ones by the index, new ones opened once, all compared with the training."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.facts import FileFacts
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.file_set import open_known
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.features.files.provenance import differences, source_of, unknown_facts
from kd_mil.data.features.files.raw import RawFile


class OpenedFeatures(NamedTuple):
    """A feature file in use."""

    facts: FileFacts
    file: FeatureFile | RawFile
    features: Tensor | None
    """(N, D) of a file that was read through just now; None where they are to be read."""


class KnownFeatures:
    """Opens feature files for prediction, each new one once; used as a context, which keeps the index in the end.

    Args:
        index: what is known of the files, and where more becomes known.
        expected: how the training features were made, as in `provenance.Source`.
        dtype: type in which features are given.
    """

    def __init__(self, index: FeatureIndex, expected: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.index, self.expected, self.dtype = index, expected, dtype
        self._opened, self._without_bounds = 0, 0
        self._not_compared: dict[str, int] = {}

    def __enter__(self) -> "KnownFeatures":
        self.index.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.index.__exit__(kind, error, trace)
        for line in self._remarks():
            warnings.warn(line, stacklevel=2)

    def require_a_fit(self, paths: Sequence[Path]) -> None:
        """See, before anything is predicted, that there is a file made as those of the training.

        It ends at the first one. Files that cannot be read are passed over: their turn comes, the error is theirs.

        Raises:
            UserError: no file fits that can be read.
        """
        misfits = []
        for path, facts in zip(paths, self.index.known(paths), strict=True):
            try:
                source = read_statement(path) if facts is None else facts.source
            except Exception:  # whatever it is, its turn comes
                continue
            lines = differences(self.expected, source)
            if not lines:
                return
            misfits.append(misfit(path, lines[0]))
        if misfits:
            raise UserError(misfits[0] + (f" ({len(misfits) - 1} more files, too)" if len(misfits) > 1 else ""))

    def open(self, path: Path) -> OpenedFeatures:
        """A file that fits, its features ready to be read.

        Raises:
            EmptyBagError: it holds no instances.
            UserError: what `facts.inspect` refuses, or it was made in another way than the training features.
        """
        [facts] = self.index.known([path])
        if facts is None:
            facts, file, features = self.index.inspect(path, self.dtype)
            opened = OpenedFeatures(facts, file, features)
        else:
            opened = OpenedFeatures(facts, open_known(path, facts), None)
        for line in differences(self.expected, facts.source):
            raise UserError(misfit(path, line))
        facts.require_type(self.dtype, path)
        self._opened += 1
        for name in unknown_facts(self.expected, facts.source):
            self._not_compared[name] = self._not_compared.get(name, 0) + 1
        return opened

    def shown_from_the_corner(self) -> None:
        """Count a file without its slide that does not say where the scanned area lies."""
        self._without_bounds += 1

    def _remarks(self) -> list[str]:
        lines = []
        if self._not_compared:
            counts = ", ".join(
                f"{name} ({count} of {self._opened} files)" for name, count in self._not_compared.items()
            )
            lines.append(f"not compared with the training features, some files do not say: {counts}")
        if self._without_bounds:
            lines.append(
                f"{self._without_bounds} feature files without their slides: positions in GeoJSON count from the "
                "slide's corner, which QuPath shows shifted on slides with bounds (MRXS, SCN): give slides=FOLDER for "
                "those"
            )
        return lines


def read_statement(path: Path) -> dict[str, Any]:
    """What a file says of its making, from its head; UserError where it cannot be read, or is empty."""
    file = FeatureFile(path)
    return source_of(path, file.width, *file.attributes)


def misfit(path: Path, line: str) -> str:
    """What to say of a feature file that differs from those of the training in what `line` says."""
    return f"{path} does not fit the checkpoint, {line}: extract its features as for the training slides"
