"""Provenance of feature files: what they say about how they were made, and whether two sets were made alike."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py

from kd_mil.core.errors import UserError
from kd_mil.core.readable import readable
from kd_mil.data.features.files.arrays import is_hdf5
from kd_mil.data.features.files.attributes import plain_attributes, positive, word
from kd_mil.data.features.files.sidecars import read_record
from kd_mil.slides.extraction.store import PREFIX

Source = dict[str, Any]
"""Facts by name as plain values, None = unknown: those of `FACTS`, `DETAILS` and `RESOLUTION`."""

FACTS = ("width", "encoder", "weights", "transform", "tile_size")
"""Features per instance, name of the encoder, hash of its weights, its transform, side of a tile in pixels as read."""
DETAILS = ("preset", "output", "stain")
"""Name of the preset of the encoder, what it gives of an image: its pooling or its stages, `own` for its own way, and
how stains were normalised, `none` where they were not.
Earlier versions and other tools do not say."""
IDENTIFIED = ("encoder", "preset")
"""Names, which equal weights make equal: a copy on disk is the model of the hub."""
RESOLUTION = ("mpp", "magnification")
"""Of the tiles as read: µm per pixel, and the nominal magnification."""
ARRAYS = ("features", "coords")
"""Those of a file whose attributes say something of its origin."""
CONSEQUENCES = {
    "negatives_known": "tiles of slides of the first class count as unknown, not as negative",
    "slide": "whether features belong to the slide of their name cannot be verified",
}
"""Of attributes that files of earlier versions lack."""
SAME_MPP = 0.02
"""Relative difference below which two resolutions are one: scanners write 0.499 and 0.5023 for the same 20x."""


def read_source(path: Path, width: int | None = None) -> Source:
    """The facts a feature file carries: those of `kd_mil.extract`, TRIDENT, STAMP or slide2vec; others none.

    Args:
        path: feature file.
        width: features per instance, where it is known already.

    Raises:
        UserError: an HDF5 file that cannot be read, or an attribute of another type.
    """
    if not is_hdf5(path):
        return source_of(path, width, read_record(path))
    with readable(path), h5py.File(path, "r") as file:
        held = (file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None for name in ARRAYS)
        attributes = [plain_attributes(one) for one in (file, *held)]
    return source_of(path, width, *attributes)


def source_of(
    path: Path,
    width: int | None,
    whole: Mapping[str, Any] = MappingProxyType({}),
    of_features: Mapping[str, Any] = MappingProxyType({}),
    of_coords: Mapping[str, Any] = MappingProxyType({}),
) -> Source:
    """As `read_source`, from the attributes of the file, of its features and of its positions."""
    source: Source = dict.fromkeys((*FACTS, *DETAILS, *RESOLUTION)) | {"width": width}
    attributes = own_attributes(path, whole)
    if "target_magnification" in of_coords:  # TRIDENT; CLAM's patch_size alone counts pixels of some level
        source["tile_size"] = positive(of_coords.get("patch_size"), "patch_size", path)
        source["magnification"] = positive(of_coords["target_magnification"], "target_magnification", path)
    if whole.get("tile_size_um") and whole.get("tile_size_px"):  # STAMP
        side, size_um = (positive(whole[name], name, path) for name in ("tile_size_px", "tile_size_um"))
        source |= {"tile_size": side, "mpp": size_um / side}  # type: ignore[operator]
    if whole.get("artifact_type"):  # slide2vec
        source["tile_size"] = positive(whole.get("requested_tile_size_px"), "requested_tile_size_px", path)
        source["mpp"] = positive(whole.get("requested_spacing_um"), "requested_spacing_um", path)
    encoder = attributes.get("encoder") or of_slide2vec(whole)
    if encoder is None:
        encoder = {"name": of_features.get("encoder") or whole.get("extractor")}
    if not isinstance(encoder, dict):
        raise UserError(f"{path}: attribute kd_mil_encoder is {str(encoder)[:40]!r}, not a mapping")
    known = {
        "encoder": word(encoder.get("name"), "encoder", path),
        "weights": encoder.get("weights"),
        "preset": encoder.get("preset"),
        "output": (encoder["output"] or "own") if "output" in encoder else None,
        "stain": (attributes["stain"] or "none") if "stain" in attributes else None,
        "transform": attributes.get("transform"),
        "mpp": positive(attributes.get("mpp"), "kd_mil_mpp", path),
    }
    return source | {key: value for key, value in known.items() if value is not None}


def of_slide2vec(whole: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name and output of the encoder in a record of slide2vec; None in anything else."""
    if "encoder_name" not in whole:
        return None
    made = whole.get("compatibility")
    output = made.get("output_variant") if isinstance(made, Mapping) else None
    return {"name": whole["encoder_name"]} | ({} if output is None else {"output": output})


def own_attributes(path: Path, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the attributes of a file that `kd_mil.extract` wrote, see `store.read_attributes`."""
    with readable(path):
        return {key[len(PREFIX) :]: json.loads(value) for key, value in whole.items() if key.startswith(PREFIX)}


def common_source(paths: Sequence[Path], sources: Sequence[Source]) -> Source:
    """What the files of one set say together.

    `mpp` is None where slides of several scanners share a nominal magnification only.

    Raises:
        UserError: two files that contradict each other.
    """
    common = dict(sources[0])
    for path, source in zip(paths, sources, strict=True):
        for line in differences(common, source):
            raise UserError(f"{path} and {paths[0]} were not made alike, {line}: extract both in the same way")
        if not _same_mpp(common, source):
            common["mpp"] = None
        common |= {key: source[key] for key, value in common.items() if value is None and key != "mpp"}
    return common


def untold(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """What a file of an earlier `kd_mil.extract` does not say that today's do, by its own attributes."""
    return tuple(name for name in CONSEQUENCES if "version" in attributes and name not in attributes)


def warn_of_old_stores(missing: Sequence[Sequence[str]]) -> None:
    """Say once of how many of the files what is `untold`, and what follows from that."""
    counts = {name: sum(name in names for names in missing) for name in CONSEQUENCES}
    told = [f"{CONSEQUENCES[name]} ({count} of {len(missing)} files)" for name, count in counts.items() if count]
    if told:
        warnings.warn(
            f"features of an earlier version of kd_mil.extract: {'; '.join(told)}; extract again to know", stacklevel=2
        )


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each fact that both know and that differs: `encoder: 'resnet18', not 'resnet50'`."""
    pairs = {name: (expected.get(name), found.get(name)) for name in (*FACTS, *DETAILS, *RESOLUTION)}
    unlike = {name for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]} - set(RESOLUTION)
    if _equal(*pairs["weights"]):
        unlike -= set(IDENTIFIED)
    lines = [f"{name}: {there!r}, not {here!r}" for name, (here, there) in pairs.items() if name in unlike]
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
