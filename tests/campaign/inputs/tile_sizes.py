"""How large a tile is: by attributes, by grid, in micrometres."""

from collections.abc import Iterator

import h5py
import numpy as np

from tests.campaign.cases import Case
from tests.campaign.checks import either, everything, listed, predicted, warned
from tests.campaign.inputs.features import CLAM, COORDS, COUNT, FEATURES, STEP, TRIDENT, feature_file, hdf5


def cases() -> Iterator[Case]:
    """How large a tile is, by attributes, by grid, in micrometres."""
    kind = "tile sizes"
    for name, write, side in (
        ("trident", hdf5(attributes=TRIDENT), STEP),
        ("clam_attributes", hdf5(attributes=CLAM), STEP),
        (
            "clam_level_0",
            hdf5(attributes=CLAM | {"patch_size": STEP, "patch_level": 0, "downsample": np.array([1.0, 1.0])}),
            STEP,
        ),
        ("trident_text", hdf5(attributes=TRIDENT | {"patch_size_level0": "512"}), STEP),
        ("trident_bytes", hdf5(attributes=TRIDENT | {"patch_size_level0": np.bytes_(b"512")}), STEP),
        ("trident_array", hdf5(attributes=TRIDENT | {"patch_size_level0": np.array([512])}), STEP),
        ("trident_float", hdf5(attributes=TRIDENT | {"patch_size_level0": 512.0}), STEP),
        ("attributes_of_file", hdf5(_patch_size_level0=STEP), STEP),
        ("grid_plain", hdf5(), STEP),
        ("grid_two_pieces", hdf5(coords=_pieces((0, 0), (3083, 2571))), STEP),
        ("grid_three_pieces", hdf5(coords=_pieces((17, 5), (3011, 2571), (6007, 1))), STEP),
        ("grid_gaps", hdf5(coords=np.delete(_block(6, 6), [7, 8, 9, 14, 15, 16, 20, 21], axis=0)[:COUNT]), STEP),
        ("grid_shuffled", hdf5(FEATURES, np.random.default_rng(0).permutation(_pieces((0, 0), (3083, 2571)))), STEP),
        ("one_row_of_tiles", hdf5(coords=np.stack([np.arange(COUNT) * STEP, np.zeros(COUNT, int)], 1)), STEP),
    ):
        yield feature_file(name, kind, f"{name}.h5", write, predicted(name, COUNT, tile_size_level0=side))
    for name, coords in (
        ("grid_random", np.random.default_rng(2).integers(0, 50_000, (COUNT, 2))),
        ("grid_one_point", np.zeros((COUNT, 2), int)),
        ("grid_diagonal", np.arange(COUNT)[:, None] ** 2 * [7, 11]),
    ):
        yield feature_file(
            name,
            kind,
            f"{name}.h5",
            hdf5(coords=coords),
            either(
                everything(predicted(name, COUNT, tile_size_level0=-1), warned(name, "tile_size_level0")),
                listed(name, "tile_size_level0"),
            ),
        )
    for name, value in (
        ("zero", 0),
        ("negative", -512),
        ("nan", np.nan),
        ("huge", 1e30),
        ("word", "large"),
        ("two", np.array([512, 256])),
        ("empty", h5py.Empty("f")),
    ):
        name = f"tile_size_{name}"
        yield feature_file(
            name,
            kind,
            f"{name}.h5",
            hdf5(attributes=TRIDENT | {"patch_size_level0": value}),
            either(
                listed(name, f"{name}|tile|patch_size"),
                everything(predicted(name, COUNT, tile_size_level0=STEP), warned(name)),
            ),
        )
    for name, value in (("text", "wide"), ("negative", -5), ("nan", np.nan), ("empty", h5py.Empty("i8"))):
        name = f"extent_{name}"
        yield feature_file(
            name,
            kind,
            f"{name}.h5",
            hdf5(attributes=TRIDENT | {"level0_width": value}),
            either(listed(name, "level0_width|extent|size|coord"), predicted(name, COUNT, tile_size_level0=STEP)),
        )
    for name, write in (
        (
            "stamp_um",
            hdf5(
                None,
                COORDS.astype(np.float64) / 2 * 1.0,
                feats=FEATURES,
                _unit="um",
                _tile_size_um=256.0,
                _tile_size_px=224,
                _extractor="uni",
            ),
        ),
        ("stamp_um_of_coords", hdf5(None, COORDS / 2.0, {"unit": "um"}, feats=FEATURES)),
        ("stamp_1", hdf5(None, COORDS // STEP * 224, feats=FEATURES, _extractor="ctranspath", _augmented=False)),
        (
            "stamp_1_units",
            hdf5(None, (COORDS // STEP).astype(np.float64) * 256.0 / 1.0, feats=FEATURES, _extractor="ctranspath"),
        ),
    ):
        yield feature_file(
            name,
            "STAMP",
            f"{name}.h5",
            write,
            either(
                everything(predicted(name, COUNT, x=-1, y=-1), warned(f"{name}|micrometres|STAMP")),
                listed(name, "micromet|µm|um|STAMP|slides"),
            ),
        )


def _block(columns: int, rows: int, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    across, down = np.meshgrid(np.arange(columns) * STEP, np.arange(rows) * STEP)
    return np.stack([across.ravel(), down.ravel()], 1) + corner


def _pieces(*corners: tuple[int, int]) -> np.ndarray:
    """Grids that start where each piece of tissue does, as CLAM's; 20 tiles in all."""
    return (
        np.concatenate([_block(5, 4, corner) for corner in corners])[
            np.linspace(0, 20 * len(corners) - 1, COUNT).astype(int)
        ]
        if len(corners) == 1
        else np.concatenate([_block(5, 4, corner)[: COUNT // len(corners) + 1] for corner in corners])[:COUNT]
    )
