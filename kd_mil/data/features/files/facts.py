"""What start-up must know of one feature file, taken in one opening of it and kept as plain values."""

import base64
import hashlib
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.files.arrays import Place, companions, is_hdf5, place_of
from kd_mil.data.features.files.feature_file import FeatureFile, converted, too_large
from kd_mil.data.features.files.positions import Statements, level0_pixels
from kd_mil.data.features.files.provenance import own_attributes, source_of, untold

ROWS = 65_536
"""Instances read at once where a file is only looked through."""
SAMPLES = 16
"""Instances, evenly spaced, whose features are in the digest."""


@dataclass(frozen=True)
class FileFacts:
    """A feature file that was read through and found sound, at one moment of its life."""

    identity: tuple[int, ...]
    """As from `identity_of`."""
    num_instances: int
    width: int
    """Features per instance."""
    dtype: str
    """Of the stored features, as NumPy or PyTorch names it."""
    largest: float
    """Largest magnitude of a feature; all are finite."""
    digest: str
    """Of shape, positions, instance labels and `SAMPLES` instances: equal for files of the same content."""
    has_coords: bool
    stated: Statements
    """Of size and position of the tiles."""
    source: dict[str, Any]
    """As in `provenance.Source`."""
    negatives_known: bool
    """Extracted with this setting."""
    slide: str | None = None
    """Hash of the content of the slide that it was extracted from, where it says so."""
    bounds_offset: Any = None
    """Where the scanned area of that slide lies, as `kd_mil.extract` wrote it."""
    slide_mpp: Any = None
    """µm per level-0 pixel of that slide, likewise."""
    untold: tuple[str, ...] = ()
    """As from `provenance.untold`."""
    marks: str | None = None
    """Instance labels or tumour fractions (N,), packed; None where the file has neither."""
    of_area: bool = False
    """The marks are tumour fractions."""
    features: Place | None = None
    """None where the file must be opened by its library."""
    coords: Place | None = None
    contents: dict[str, str] = field(default_factory=dict)
    """Hashes of the bag that runs record, by the settings that they depend on."""

    @property
    def is_raw(self) -> bool:
        """Whether features and positions can be read from their places."""
        return self.features is not None and (self.coords is not None or not self.has_coords)

    def instance_labels(self, tumour_threshold: float) -> Tensor:
        """(N,) int64, -1 = unknown; as `FeatureFile.instance_labels`."""
        if self.marks is None:
            return torch.full((self.num_instances,), -1)
        marks = np.frombuffer(zlib.decompress(base64.b64decode(self.marks)), "<f4" if self.of_area else "<i8")
        return torch.from_numpy(marks >= tumour_threshold if self.of_area else marks.copy()).long()

    def places(self, slide_mpp: float | None, path: Path) -> bool:
        """Whether the file has positions that can be told in pixels; where it cannot, a warning says why."""
        return self.has_coords and level0_pixels(path, np.empty((0, 2)), self.stated, slide_mpp) is not None

    def require_current(self, path: Path) -> None:
        """UserError where a file is not the one that these facts are of."""
        with readable(path):
            status = path.stat()
        self.require_same(path, status)

    def require_same(self, path: Path, status: os.stat_result) -> None:
        """UserError where the status is not of the file that these facts are of."""
        if status.st_size != self.identity[0] or status.st_mtime_ns != self.identity[1]:
            raise UserError(f"{path} was changed after it had been checked: start again")

    def require_type(self, dtype: torch.dtype, path: Path) -> None:
        """UserError for values beyond the range of `dtype`."""
        if not torch.tensor(self.largest, dtype=torch.float64).to(dtype).isfinite():
            raise too_large(path, self.largest)

    def plain(self) -> dict[str, Any]:
        """As JSON values; what is absent is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


def facts_of(values: Mapping[str, Any]) -> FileFacts:
    """The facts that `plain` gave.

    Raises:
        TypeError, KeyError, ValueError: they are not.
    """
    places = {name: Place(*values[name]) for name in ("features", "coords") if name in values}
    size, extent, *others = values["stated"]
    whole = {
        "identity": tuple(values["identity"]),
        "untold": tuple(values["untold"]),
        "stated": Statements(size, None if extent is None else tuple(extent), *others),
    }
    return FileFacts(**{**values, **places, **whole})


def identity_of(path: Path) -> tuple[int, ...]:
    """Size and time of change (ns) of a file and of its companions: they stand for its content, without reading it.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return (status.st_size, status.st_mtime_ns, *beside(path))


def beside(path: Path) -> list[int]:
    """As `identity_of`, of the companions of a file alone: empty for most."""
    identity: list[int] = []
    for name, companion in companions(path).items():
        with suppress(FileNotFoundError):
            status = companion.stat()
            identity += [sum(name.encode()), status.st_size, status.st_mtime_ns]
    return identity


def inspect(path: Path, keep: torch.dtype | None) -> tuple[FileFacts, FeatureFile, Tensor]:
    """Read a file through in one opening: its facts, itself, still open, and its features in memory.

    Args:
        path: the file.
        keep: the type in which all features (N, D) are returned; None = they are looked through and let go, (0, D).

    Raises:
        UserError: what `FeatureFile` refuses of any of its arrays; NaN or infinite features.
    """
    with readable(path):
        identity = identity_of(path)
    file = FeatureFile(path)
    features, largest, digest = _looked_through(file, keep)
    marks, of_area = _marks(file)
    for array in (file.stored_coords, marks):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    if file.stored_coords is not None and file.stated.micrometres is None and not file.stated.is_unclear:
        level0_pixels(path, file.stored_coords, file.stated, None)
    own = own_attributes(path, file.attributes[0])
    is_one_file = is_hdf5(path) or not companions(path)
    facts = FileFacts(
        identity=identity,
        num_instances=file.num_instances,
        width=file.width,
        dtype=str(file.features.dtype).removeprefix("torch."),
        largest=largest,
        digest=digest.hexdigest(),
        has_coords=file.stored_coords is not None,
        stated=file.stated,
        source=source_of(path, file.width, *file.attributes),
        negatives_known=own.get("negatives_known") is True,
        slide=own["slide"].get("content") if isinstance(own.get("slide"), dict) else None,
        bounds_offset=own.get("bounds_offset"),
        slide_mpp=own.get("slide_mpp"),
        untold=untold(own),
        marks=None if marks is None else base64.b64encode(zlib.compress(marks.tobytes())).decode(),
        of_area=of_area,
        features=place_of(file.features),
        coords=place_of(file.coords_array) if is_one_file else None,
    )
    return facts, file, features


def _looked_through(file: FeatureFile, keep: torch.dtype | None) -> tuple[Tensor, float, Any]:
    """Features as asked for, the largest magnitude, and a digest of shape and some of them, to be continued."""
    count = file.num_instances
    kept = torch.empty((count if keep else 0, file.width), dtype=keep or torch.float32)
    sample = np.unique(np.linspace(0, count - 1, SAMPLES).astype(int))
    digest, largest = hashlib.blake2b(str((count, file.width)).encode(), digest_size=8), 0.0
    for start in range(0, count, ROWS):
        rows = slice(start, min(start + ROWS, count))
        values = file.stored(rows)
        values = values if values.dtype.is_floating_point else values.double()
        converted(file.path, values, torch.arange(start, rows.stop), values.dtype)
        largest = max(largest, float(values.abs().max()))
        chosen = sample[(sample >= start) & (sample < rows.stop)] - start
        digest.update(values[torch.from_numpy(chosen)].double().numpy().tobytes())
        if keep:
            kept[rows] = values
    return kept, largest, digest


def _marks(file: FeatureFile) -> tuple[np.ndarray | None, bool]:
    """What the file says its instances are, and whether by tumour fractions."""
    fractions = file.tumour_fraction()
    if fractions is not None:
        return fractions.numpy().astype("<f4"), True
    return (file.instance_labels().numpy().astype("<i8") if file.has_labels else None), False
