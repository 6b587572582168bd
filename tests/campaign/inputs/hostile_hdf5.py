"""Links, storage elsewhere, shapes that nothing backs, attributes of wrong types, damage."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.campaign.cases import Case
from tests.campaign.checks import either, listed, predicted
from tests.campaign.inputs.features import COUNT, FEATURES, STEP, TRIDENT, WIDTH, bad, feature_file, hdf5


def cases() -> Iterator[Case]:
    yield from hostile_hdf5()
    yield from damaged()


def hostile_hdf5() -> Iterator[Case]:
    """Links, storage elsewhere, shapes that nothing backs, attributes of wrong types."""
    kind = "hostile HDF5"

    def external_raw(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("features", (COUNT, WIDTH), "u1", external=[("/etc/passwd", 0, COUNT * WIDTH)])

    def external_link(path: Path) -> None:
        hdf5()(path.with_name(f"other_{path.stem}.bin"))
        with h5py.File(path, "w") as file:
            file["features"] = h5py.ExternalLink(f"other_{path.stem}.bin", "features")

    def soft(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["features"] = h5py.SoftLink("/features")

    def dangling(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["features"] = h5py.SoftLink("/nowhere")

    def virtual(path: Path) -> None:
        hdf5()(path.with_name(f"other_{path.stem}.bin"))
        layout = h5py.VirtualLayout((COUNT, WIDTH), "f4")
        layout[:] = h5py.VirtualSource(f"other_{path.stem}.bin", "features", (COUNT, WIDTH))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("features", layout)

    def declared(rows: int, width: int, **form: Any) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("features", (rows, width), "f4", **form)

        return write

    def group(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_group("features")["x"] = FEATURES

    def references(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("features", (COUNT, WIDTH), h5py.ref_dtype)

    for name, write, words in (
        ("external_storage", external_raw, "external"),
        ("external_link", external_link, "link|external"),
        ("soft_link_loop", soft, "link|readable|features"),
        ("soft_link_nowhere", dangling, "link|readable|features"),
        ("virtual_data", virtual, "virtual|external"),
        ("rows_10_10", declared(10**10, WIDTH), "rows|shape|size|large|declare"),
        (
            "rows_10_10_chunked",
            declared(10**10, WIDTH, chunks=(1024, WIDTH), compression="gzip"),
            "rows|shape|size|large|declare",
        ),
        ("rows_10_8", declared(10**8, WIDTH, chunks=(1024, WIDTH)), "rows|shape|size|large|declare"),
        ("width_10_9", declared(20, 10**9, chunks=(1, 10**6)), "width|shape|size|large|features"),
        ("group_for_features", group, "features"),
        ("references", references, "type|features"),
    ):
        yield bad(name, kind, f"{name}.h5", write, words)
    for name, more in (
        ("encoder_number", {"_kd_mil_encoder": "5"}),
        ("encoder_no_json", {"_kd_mil_encoder": "{"}),
        ("encoder_list", {"_kd_mil_encoder": "[1]"}),
        ("encoder_array", {"_kd_mil_encoder": np.zeros(3)}),
        ("encoder_bytes", {"_kd_mil_encoder": np.void(b"\xff\xfe")}),
        ("version_only", {"_kd_mil_version": '"0.1.0"'}),
        ("slide_mpp_text", {"_kd_mil_slide_mpp": '"fine"'}),
        ("slide_mpp_negative", {"_kd_mil_slide_mpp": "-1"}),
        ("mpp_nan", {"_kd_mil_mpp": "NaN"}),
        ("extractor_array", {"_extractor": np.array(["a", "b"], dtype="S1")}),
        ("stamp_zero", {"_tile_size_um": 0.0, "_tile_size_px": 0}),
        ("stamp_text", {"_tile_size_um": "x", "_tile_size_px": "y"}),
        ("encoder_nested", {"_kd_mil_encoder": "[" * 5000 + "]" * 5000}),
    ):
        name = f"attribute_{name}"
        yield feature_file(
            name,
            "attributes of wrong types",
            f"{name}.h5",
            hdf5(attributes=TRIDENT, **more),
            either(predicted(name, COUNT, tile_size_level0=STEP), listed(name, f"{name}|attribute")),
        )


def damaged() -> Iterator[Case]:
    """Files that are not what their suffix says."""
    kind = "damaged features"

    def cut(path: Path) -> None:
        hdf5(np.ones((500, WIDTH), np.float32), None)(path)
        path.write_bytes(path.read_bytes()[:6000])

    def flipped(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=FEATURES, chunks=(5, WIDTH), compression="gzip", fletcher32=True)
            place = file["features"].id.get_chunk_info(1).byte_offset
        content = bytearray(path.read_bytes())
        content[place + 4 : place + 12] = bytes(8)
        path.write_bytes(bytes(content))

    for suffix in ("h5", "pt", "npy", "npz"):
        for name, content in (
            ("empty", b""),
            ("text", b"not features"),
            ("zeros", bytes(4096)),
            ("html", b"<!DOCTYPE html>"),
        ):
            yield bad(
                f"{suffix}_{name}_file",
                kind,
                f"{name}.{suffix}",
                lambda path, content=content: path.write_bytes(content),
            )
    yield bad("h5_cut", kind, "cut.h5", cut)
    yield bad("h5_flipped", kind, "flipped.h5", flipped)
    yield bad("h5_signature", kind, "signature.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)))
