"""Types and shapes of features, and of what belongs to them."""

from collections.abc import Iterator

import numpy as np

from tests.campaign.cases import Case, Check
from tests.campaign.checks import either, listed, predicted
from tests.campaign.inputs.features import COORDS, COUNT, FEATURES, TRIDENT, WIDTH, bad, feature_file, hdf5


def cases() -> Iterator[Case]:
    """Types and shapes of the features."""
    kind = "types and shapes"
    for name, write in (
        ("h5_plain", hdf5()),
        ("h5_feats", hdf5(key="feats")),
        ("h5_big_endian", hdf5(FEATURES.astype(">f4"))),
        ("h5_big_endian_double", hdf5(FEATURES.astype(">f8"))),
        ("h5_half", hdf5(FEATURES.astype(np.float16))),
        ("h5_double", hdf5(FEATURES.astype(np.float64))),
        ("h5_integers", hdf5((FEATURES * 10).astype(np.int16))),
        ("h5_unsigned", hdf5((FEATURES * 10 + 99).astype(np.uint16))),
        ("h5_bytes", hdf5((FEATURES * 10 + 99).astype(np.uint8))),
        ("h5_unsigned32", hdf5((FEATURES * 10 + 99).astype(np.uint32))),
        ("h5_batched", hdf5(FEATURES[None])),
        ("h5_no_coords", hdf5(coords=None)),
        ("h5_coords_float", hdf5(coords=COORDS.astype(np.float32))),
        ("h5_coords_batched", hdf5(coords=COORDS[None])),
        ("h5_coords_big_endian", hdf5(coords=COORDS.astype(">i4"))),
        ("h5_coords_unsigned", hdf5(coords=COORDS.astype(np.uint32))),
        ("h5_one_row", hdf5(FEATURES[:1], COORDS[:1], TRIDENT)),
        ("h5_labels", hdf5(patch_labels=np.zeros(COUNT, np.int64))),
        ("h5_fractions", hdf5(tumour_fraction=np.zeros(COUNT, np.float32))),
    ):
        yield feature_file(name, kind, f"{name}.h5", write, predicted(name, 1 if name == "h5_one_row" else COUNT))
    yield feature_file("h5_capitals", kind, "capitals.H5", hdf5())
    yield feature_file("hdf5_suffix", kind, "long.hdf5", hdf5())
    nan, infinite = FEATURES.copy(), FEATURES.copy()
    nan[7, 3], infinite[7, 3] = np.nan, np.inf
    yield bad("h5_nan", kind, "nan.h5", hdf5(nan), "nan", "7")
    yield bad("h5_infinite", kind, "infinite.h5", hdf5(infinite), "infinite", "7")
    yield feature_file(
        "h5_beyond_half",
        kind,
        "beyond_half.h5",
        hdf5(FEATURES * 1e6),
        either(listed("h5_beyond_half", "half precision"), predicted("h5_beyond_half", COUNT)),
    )
    yield bad(
        "h5_beyond_single",
        kind,
        "beyond_single.h5",
        hdf5(FEATURES.astype(np.float64) * 1e300),
        "precision|infinite|large",
    )
    for name, write, words in (
        ("h5_complex", hdf5(FEATURES.astype(np.complex64)), "complex|type|number"),
        ("h5_text", hdf5(np.full((COUNT, WIDTH), b"x")), "type|number|readable"),
        ("h5_bool", hdf5(FEATURES > 0), "type|number|bool"),
        ("h5_compound", hdf5(np.zeros(COUNT, [("a", "f4"), ("b", "f4")])), "shape|type"),
        ("h5_scalar", hdf5(1.0), "shape"),
        ("h5_vector", hdf5(FEATURES[0]), "shape"),
        ("h5_four_axes", hdf5(FEATURES.reshape(1, 1, COUNT, WIDTH)), "shape"),
        ("h5_two_batches", hdf5(np.stack([FEATURES] * 2)), "shape"),
        ("h5_no_width", hdf5(FEATURES[:, :0]), "width|shape|empty|features"),
        (
            "h5_other_width",
            hdf5(np.ones((COUNT, 12), np.float32)),
            "12",
        ),
        ("h5_nothing", hdf5(None, None), "features"),
        ("h5_other_key", hdf5(key="embeddings"), "features"),
        ("h5_two_keys", hdf5(feats=FEATURES), "both"),
        ("h5_coords_short", hdf5(coords=COORDS[:5]), "coords"),
        ("h5_coords_three", hdf5(coords=np.zeros((COUNT, 3))), "coords"),
        ("h5_coords_nan", hdf5(coords=np.full((COUNT, 2), np.nan)), "coord"),
        ("h5_coords_infinite", hdf5(coords=np.full((COUNT, 2), np.inf)), "coord"),
        ("h5_coords_negative", hdf5(coords=COORDS - 5000, attributes=TRIDENT), "coord"),
        ("h5_coords_far", hdf5(coords=COORDS * 10**9, attributes=TRIDENT), "coord"),
        ("h5_coords_text", hdf5(coords=np.full((COUNT, 2), b"1")), "coord"),
        ("h5_coords_complex", hdf5(coords=COORDS.astype(np.complex128)), "coord"),
    ):
        yield bad(name, kind, f"{name}.h5", write, words)
    for name, write in (  # predictions have no use for labels
        ("h5_labels_half", hdf5(patch_labels=np.full(COUNT, 0.5))),
        ("h5_labels_seven", hdf5(patch_labels=np.full(COUNT, 7))),
        ("h5_labels_short", hdf5(patch_labels=np.zeros(3))),
        ("h5_fraction_two", hdf5(tumour_fraction=np.full(COUNT, 2.0))),
        ("h5_fraction_nan", hdf5(tumour_fraction=np.full(COUNT, np.nan))),
    ):
        yield feature_file(
            name, kind, f"{name}.h5", write, either(predicted(name, COUNT), listed(name, "label|fraction"))
        )
    for name, write in (
        ("h5_no_rows", hdf5(FEATURES[:0], COORDS[:0])),
        ("h5_no_rows_batched", hdf5(FEATURES[None, :0], None)),
    ):
        yield feature_file(
            name, kind, f"{name}.h5", write, either(predicted_none(name), listed(name, "no instances|empty|tissue"))
        )


def predicted_none(name: str) -> Check:
    return lambda result: (
        [] if any(row.get("tiles") == "0" for row in result.rows_of(name)) else ["not listed as empty"]
    )
