"""`.npy` and `.npz`, bombs and slideflow's index included."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.campaign.cases import Case
from tests.campaign.checks import predicted
from tests.campaign.inputs.features import COORDS, COUNT, FEATURES, STEP, WIDTH, bad, feature_file
from tests.campaign.inputs.tensors import Evil


def cases() -> Iterator[Case]:
    """`.npy` and `.npz`."""
    kind = "NumPy files"

    def npz(**named: Any) -> Callable[[Path], None]:
        return lambda path: np.savez(path, **named)

    def header(text: str, body: bytes = b"") -> Callable[[Path], None]:
        def write(path: Path) -> None:
            padded = text.encode() + b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
            path.write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + body)

        return write

    def bomb(path: Path) -> None:
        """4 GB of zeros in 4 MB."""
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**27}, 8), }}"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
            file.open("features.npy", "w", force_zip64=True) as member,
        ):
            padded = text.encode() + b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
            member.write(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded)
            block = bytes(1 << 24)
            for _ in range(2**27 * 32 // len(block)):
                member.write(block)

    def slideflow(path: Path) -> None:
        torch.save(torch.from_numpy(FEATURES), path)
        np.savez(path.with_name(f"{path.stem}.index.npz"), arr_0=COORDS)

    for name, write in (
        ("npy_plain", lambda path: np.save(path, FEATURES)),
        ("npy_fortran", lambda path: np.save(path, np.asfortranarray(FEATURES))),
        ("npy_big_endian", lambda path: np.save(path, FEATURES.astype(">f4"))),
        ("npy_half", lambda path: np.save(path, FEATURES.astype("f2"))),
        ("npy_batched", lambda path: np.save(path, FEATURES[None])),
        ("npy_version_3", _npy3),
    ):
        yield feature_file(name, kind, f"{name}.npy", write)
    for name, write in (
        ("npz_plain", npz(features=FEATURES, coords=COORDS)),
        ("npz_feats", npz(feats=FEATURES)),
        ("npz_big_endian", npz(features=FEATURES.astype(">f8"))),
        ("npz_packed", lambda path: np.savez_compressed(path, features=FEATURES)),
    ):
        yield feature_file(name, kind, f"{name}.npz", write)
    yield feature_file(
        "npz_other_member", kind, "npz_other_member.npz", lambda path: _with_member(path, "../../evil.txt")
    )
    yield feature_file(
        "slideflow",
        "slideflow",
        "slideflow.pt",
        slideflow,
        predicted("slideflow", COUNT, x=0, y=0, tile_size_level0=STEP),
    )
    for name, write, words in (
        (
            "npy_objects",
            lambda path: np.save(path, np.array([{"a": 1}] * COUNT), allow_pickle=True),
            "pickle|object|readable",
        ),
        (
            "npy_evil",
            lambda path: np.save(
                path, np.array([Evil(path.with_name("executed3.txt"))], dtype=object), allow_pickle=True
            ),
            "pickle|object|readable",
        ),
        ("npy_complex", lambda path: np.save(path, FEATURES.astype(complex)), "complex|type"),
        ("npy_text", lambda path: np.save(path, np.full((COUNT, WIDTH), "x")), "type|number"),
        (
            "npy_huge",
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 8), }"),
            "size|large|readable|short",
        ),
        (
            "npy_negative",
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (-20, 8), }", FEATURES.tobytes()),
            "shape|readable",
        ),
        (
            "npy_code",
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(), 8), }"),
            "readable|header",
        ),
        (
            "npy_short",
            lambda path: (np.save(path, FEATURES), path.write_bytes(path.read_bytes()[:300])),
            "readable|short|size",
        ),
        ("npy_structured", lambda path: np.save(path, np.zeros((COUNT, WIDTH), [("a", "f4")])), "type|shape"),
        ("npy_dates", lambda path: np.save(path, np.zeros((COUNT, WIDTH), "M8[s]")), "type|number"),
    ):
        yield bad(name, kind, f"{name}.npy", write, words)
    yield bad("npz_bomb", "hostile files", "bomb.npz", bomb, "large|size|expand|GiB")
    yield bad(
        "npz_objects",
        kind,
        "objects.npz",
        npz(features=np.array([None] * COUNT, dtype=object)),
        "pickle|object|readable",
    )
    yield bad("npz_no_features", kind, "nothing.npz", npz(arr_0=FEATURES[0], arr_1=COORDS), "features")
    yield bad(
        "npz_evil",
        "hostile files",
        "evil.npz",
        lambda path: np.savez(path, features=np.array([Evil(path.with_name("executed4.txt"))], dtype=object)),
        "pickle|object|readable",
    )


def _npy3(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, FEATURES, version=(3, 0))


def _with_member(path: Path, member: str) -> None:
    np.savez(path, features=FEATURES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(member, "evil")
