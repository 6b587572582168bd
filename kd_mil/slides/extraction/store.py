"""The feature store: one HDF5 file per slide in TRIDENT's layout, with the settings that reproduce it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from kd_mil.core.atomic import atomic_path
from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.core.version import __version__
from kd_mil.slides.tiles.tiling import Tiles

PREFIX = "kd_mil_"
"""Of the attributes added here; each holds JSON. Readers of TRIDENT's files ignore them."""
ADVICE = "remove it and extract the slide again"
SETTINGS = ("tiling", "tissue", "annotations", "backend", "encoder", "transform", "stain")
"""Attributes that decide what a file holds: a file that differs in one is not reused."""


class OtherSettingsError(UserError):
    """Something was made with other settings than those asked for."""


class UnwritableError(UserError):
    """A file that cannot be written, as on a full disk: so it will be for the next one."""


def slide_file(out: Path, slide_id: str, with_features: bool = True) -> Path:
    """Where `kd_mil.extract` puts a slide: `out/features/ID.h5`, of coordinates alone `out/patches/ID_patches.h5`."""
    return out / "features" / f"{slide_id}.h5" if with_features else out / "patches" / f"{slide_id}_patches.h5"


@dataclass(frozen=True)
class StoredSlide:
    """The content of one file."""

    path: Path
    tiles: Tiles
    features: np.ndarray | None
    """(N, D) float16; None where there are coordinates alone, or features were not asked for."""
    tumour_fraction: np.ndarray | None
    """(N,) float32 in [0, 1], tumour area of each tile; None without annotations."""
    attributes: dict[str, Any]
    """See `read_attributes`."""


def write_slide(
    path: Path,
    tiles: Tiles,
    features: np.ndarray | None = None,
    tumour_fraction: np.ndarray | None = None,
    *,
    attributes: Mapping[str, Any],
) -> None:
    """Write a slide's file; it appears under its name once it is complete and on the disk.

    Arrays are contiguous: a slide is read at once, and chunks of one row, as others write them, cost many times more.

    Args:
        path: `.h5` file; replaced where it exists.
        tiles: the tiles, none included; N of them.
        features: (N, D), kept as float16.
        tumour_fraction: (N,).
        attributes: plain values by name, kept as `kd_mil_<name>`. `version` and what `tiles` say are added here, see
            `read_attributes`; `encoder["name"]` also becomes TRIDENT's attribute of the features.

    Raises:
        UserError: features that are not finite in half precision.
        UnwritableError: a disk that cannot be written.
    """
    half = None if features is None else half_precision(features, path)
    of_tiles = {
        "mpp": tiles.mpp,
        "slide_mpp": tiles.slide_mpp,
        "bounds_offset": tiles.bounds_offset,
        "doubts": tiles.remarks,
        "tissue_share": tiles.tissue_share,
        "rejected": tiles.rejected,
    }
    stored = {"version": __version__, **of_tiles, **attributes}
    folder = str(path.parent)
    try:
        with atomic_path(path) as temporary:
            with h5py.File(temporary, "w") as file:
                coords = file.create_dataset("coords", data=np.asarray(tiles.coords, np.int64).reshape(-1, 2))
                coords.attrs.update(tiles.attributes(folder))
                file["tissue_fraction"] = np.asarray(tiles.tissue, np.float32)
                if half is not None:
                    name = (stored.get("encoder") or {}).get("name", "None")
                    file.create_dataset("features", data=half).attrs.update(
                        {"name": tiles.slide_name, "savetodir": folder, "encoder": name}
                    )
                if tumour_fraction is not None:
                    file["tumour_fraction"] = np.asarray(tumour_fraction, np.float32)
                file.attrs.update({PREFIX + key: json.dumps(value) for key, value in stored.items()})
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
    except OSError as error:
        raise UnwritableError(
            f"{path} cannot be written ({error}): is the disk full, or the folder read-only?"
        ) from error


def half_precision(features: np.ndarray, path: Path) -> np.ndarray:
    """Features (N, D) as float16.

    Raises:
        UserError: NaN, infinite, or beyond the range of float16.
    """
    with np.errstate(over="ignore"):
        half = np.asarray(features).astype(np.float16)
    if not np.isfinite(half).all():
        row = int(np.flatnonzero(~np.isfinite(half).all(axis=1))[0])
        raise UserError(
            f"{path}: features of tile {row} are NaN or beyond half precision: check the encoder and its precision"
        )
    return half


def read_slide(path: str | Path, with_features: bool = True) -> StoredSlide:
    """Read a slide's file.

    Raises:
        UserError: no such file, a damaged one, or one that `write_slide` did not write.
    """
    path, attributes = Path(path), read_attributes(path)
    if "version" not in attributes:
        raise UserError(
            f"{path} was not written by `kd_mil.extract`: it does not say at which resolution its tiles are"
        )
    with readable(path, ADVICE), h5py.File(path, "r") as file:
        arrays = {name: file[name][()] for name in file if name != "features" or with_features}
        geometry = dict(file["coords"].attrs)
        tiles = Tiles(
            coords=arrays["coords"],
            tissue=arrays["tissue_fraction"],
            tile_size=int(geometry["patch_size"]),
            tile_size_level0=int(geometry["patch_size_level0"]),
            mpp=attributes["mpp"],
            overlap=int(geometry["overlap"]),
            slide_name=str(geometry["name"]),
            slide_dimensions=(int(geometry["level0_width"]), int(geometry["level0_height"])),
            slide_mpp=attributes["slide_mpp"],
            magnification=(attributes.get("tiling") or {}).get("magnification"),
            bounds_offset=tuple(attributes["bounds_offset"]) if attributes.get("bounds_offset") else None,
            doubts=tuple(attributes.get("doubts", ())),
            tissue_share=attributes.get("tissue_share"),
            rejected=attributes.get("rejected"),
        )
    return StoredSlide(path, tiles, arrays.get("features"), arrays.get("tumour_fraction"), attributes)


def read_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes given to `write_slide`, and `version`, `mpp` (of the tiles), `slide_mpp`; none in foreign files.

    `kd_mil.extract` writes
        tiling, tissue, annotations: the settings, by name.
        bounds_offset: (x, y) of the scanned area in level-0 pixels.
        doubts: what makes tissue or tiles doubtful, one line each.
        tissue_share, rejected: see `Tiles`.
        backend: the slide reader.
        mpp_override: µm per level-0 pixel given by the user whatever the slide states, or None.
        mpp_source: who says what `slide_mpp` is: `file`, `mpp` (given where the file states none), or `mpp_override`.
        slide: `size`, `modified` and `content` of the slide's file, see `slide_content.slide_identity`.
        annotation, outlines: hash of the annotation file, and of the file that outlines the tissue, or None.
        negatives_known: whether tiles of slides of the first class count as negative.

    Files of version 0.1 and before lack `mpp_source`, `slide` and `negatives_known`.
        encoder: None for coordinates alone, else `name`, `config` (factory and arguments), `weights` (hash), `features`
            (D), `precision`.
        stain: None, or `name` and settings of the normalisation; stain_matrix: (3, 3) map of optical densities.
        transform: None, or `size` (pixels), `interpolation`, `mean`, `std` of pixels in [0, 1].

    Raises:
        UserError: no such file, or no HDF5.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: give a file that `kd_mil.extract` wrote")
    with readable(Path(path), ADVICE), h5py.File(path, "r") as file:
        return attributes_of(file)


class Summary(NamedTuple):
    """What a file says without its arrays."""

    tiles: int
    attributes: dict[str, Any]
    """See `read_attributes`."""


def read_summary(path: Path) -> Summary:
    """Number of tiles and attributes of a file that `write_slide` wrote; UserError where it is damaged."""
    with readable(path, ADVICE), h5py.File(path, "r") as file:
        return Summary(len(file["coords"]), attributes_of(file))


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """The attributes that were added here, of an open file."""
    return {key[len(PREFIX) :]: json.loads(value) for key, value in file.attrs.items() if key.startswith(PREFIX)}


def is_complete(path: Path, attributes: Mapping[str, Any]) -> bool:
    """Whether a file exists that holds what these attributes ask for; a damaged one does not count.

    Raises:
        OtherSettingsError: it was made with others of those in `SETTINGS` that `attributes` has.
    """
    if not path.is_file():
        return False
    try:
        stored = read_summary(path).attributes
    except UserError:
        return False
    wanted = {name: attributes[name] for name in SETTINGS if name in attributes}
    refuse_other_settings(path, {name: stored.get(name) for name in wanted}, wanted)
    return True


def refuse_other_settings(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Do nothing where the two agree.

    Raises:
        OtherSettingsError: they do not; it names every value that differs.
    """
    there, here = flattened(json.loads(json.dumps(stored))), flattened(json.loads(json.dumps(wanted)))
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        listed = ", ".join(f"{name} was {there.get(name)!r} and is {here.get(name)!r}" for name in names)
        raise OtherSettingsError(f"{path} was made with other settings: {listed}; choose another out=")


def flattened(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flattened(item, f"{above}{key}.") if isinstance(item, dict) else {f"{above}{key}": item}
    return flat
