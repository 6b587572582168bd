"""Provenance of feature files: what they say about how they were made, and whether two sets were made alike."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
from tqdm import tqdm

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.arrays import is_hdf5
from kd_mil.data.features.attributes import plain_attributes, positive, word
from kd_mil.slides.extraction.store import read_attributes

Source = dict[str, Any]
"""Facts by name as plain values, None = unknown: those of `FACTS`, `mpp` and `magnification`."""

FACTS = ("width", "encoder", "weights", "transform", "tile_size")
"""Features per instance, name of the encoder, hash of its weights, its transform, side of a tile in pixels as read."""
RESOLUTION = ("mpp", "magnification")
"""Of the tiles as read: µm per pixel, and the nominal magnification."""
SAME_MPP = 0.02
"""Relative difference below which two resolutions are one: scanners write 0.499 and 0.5023 for the same 20x."""


def read_source(path: Path, width: int | None = None) -> Source:
    """The facts a feature file carries: those of `kd_mil.extract`, TRIDENT or STAMP; other files carry none.

    Args:
        path: feature file.
        width: features per instance, where it is known already.

    Raises:
        UserError: an HDF5 file that cannot be read, or an attribute of another type.
    """
    source: Source = dict.fromkeys((*FACTS, *RESOLUTION)) | {"width": width}
    if not is_hdf5(path):
        return source
    attributes = read_attributes(path)
    with readable(path), h5py.File(path, "r") as file:
        whole, of_features, of_coords = (plain_attributes(file, name) for name in ("/", "features", "coords"))
    if "target_magnification" in of_coords:  # TRIDENT; CLAM's patch_size alone counts pixels of some level
        source["tile_size"] = positive(of_coords.get("patch_size"), "patch_size", path)
        source["magnification"] = positive(of_coords["target_magnification"], "target_magnification", path)
    if whole.get("tile_size_um") and whole.get("tile_size_px"):  # STAMP
        side, size_um = (positive(whole[name], name, path) for name in ("tile_size_px", "tile_size_um"))
        source |= {"tile_size": side, "mpp": size_um / side}  # type: ignore[operator]
    encoder = attributes.get("encoder")
    if encoder is None:
        encoder = {"name": of_features.get("encoder") or whole.get("extractor")}
    if not isinstance(encoder, dict):
        raise UserError(f"{path}: attribute kd_mil_encoder is {str(encoder)[:40]!r}, not a mapping")
    known = {
        "encoder": word(encoder.get("name"), "encoder", path),
        "weights": encoder.get("weights"),
        "transform": attributes.get("transform"),
        "mpp": positive(attributes.get("mpp"), "kd_mil_mpp", path),
    }
    return source | {key: value for key, value in known.items() if value is not None}


def common_source(paths: Sequence[Path], width: int) -> Source:
    """What the files of one set say together.

    `mpp` is None where slides of several scanners share a nominal magnification only.

    Raises:
        UserError: two files that contradict each other.
    """
    common = read_source(paths[0], width)
    for path in tqdm(paths, desc="origin of features", unit="file", disable=None, leave=False):
        source = read_source(path, width)
        for line in differences(common, source):
            raise UserError(f"{path} and {paths[0]} were not made alike, {line}: extract both in the same way")
        if not _same_mpp(common, source):
            common["mpp"] = None
        common |= {key: source[key] for key, value in common.items() if value is None and key != "mpp"}
    return common


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each fact that both know and that differs: `encoder: 'resnet18', not 'resnet50'`."""
    pairs = {name: (expected.get(name), found.get(name)) for name in (*FACTS, *RESOLUTION)}
    lines = [
        f"{name}: {there!r}, not {here!r}"
        for name, (here, there) in pairs.items()
        if name in FACTS and None not in (here, there) and here != there
    ]
    compared = [name for name in RESOLUTION if None not in pairs[name]]
    if compared and not (_same_mpp(expected, found, unknown=False) or _equal(*pairs["magnification"])):
        here, there = pairs[compared[0]]
        lines.append(f"{compared[0]}: {there:g}, not {here:g}")
    return lines


def unknown_facts(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names of the facts that cannot be compared, because one side does not know them."""
    names = [name for name in FACTS if None in (expected.get(name), found.get(name))]
    comparable = any(None not in (expected.get(name), found.get(name)) for name in RESOLUTION)
    return names if comparable else [*names, "mpp"]


def _same_mpp(first: Mapping[str, Any], second: Mapping[str, Any], unknown: bool = True) -> bool:
    here, there = first.get("mpp"), second.get("mpp")
    return unknown if here is None or there is None else math.isclose(here, there, rel_tol=SAME_MPP)


def _equal(first: Any, second: Any) -> bool:
    return first is not None and first == second
