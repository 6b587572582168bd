"""What `torch.save` leaves, and pickles that would act."""

import io
import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.campaign.cases import Case
from tests.campaign.inputs.features import (
    COORDS,
    COUNT,
    FEATURES,
    WIDTH,
    bad,
    feature_file,
)


class Evil:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def cases() -> Iterator[Case]:
    """What `torch.save` leaves."""
    kind, plain = "PyTorch files", torch.from_numpy(FEATURES)

    def saved(content: Any, **form: Any) -> Callable[[Path], None]:
        return lambda path: torch.save(content, path, **form)

    def pickled(path: Path) -> None:
        path.write_bytes(pickle.dumps(Evil(path.with_name("executed.txt"))))

    def tar(path: Path) -> None:
        with tarfile.open(path, "w") as file:
            info = tarfile.TarInfo("../../evil.txt")
            info.size = 4
            file.addfile(info, io.BytesIO(b"evil"))

    def script(path: Path) -> None:
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))

    for name, content, form in (
        ("pt_plain", plain, {}),
        ("pt_half", plain.half(), {}),
        ("pt_bfloat16", plain.bfloat16(), {}),
        ("pt_double", plain.double(), {}),
        ("pt_dict", {"features": plain, "coords": torch.from_numpy(COORDS)}, {}),
        ("pt_dict_feats", {"feats": plain}, {}),
        ("pt_old_format", plain, {"_use_new_zipfile_serialization": False}),
        ("pt_transposed", plain.t().contiguous().t(), {}),
        ("pt_view", torch.cat([plain, plain])[:COUNT], {}),
        ("pt_parameter", torch.nn.Parameter(plain), {}),
        ("pt_requires_grad", plain.clone().requires_grad_(), {}),
        ("pt_integers", (plain * 10).int(), {}),
    ):
        yield feature_file(name, kind, f"{name}.pt", saved(content, **form))
    yield feature_file("pth_suffix", kind, "suffix.pth", saved(plain))
    yield feature_file("pt_capitals", kind, "capitals.PT", saved(plain))
    for name, content, words in (
        ("pt_complex", plain.to(torch.complex64), "complex|type"),
        ("pt_sparse", plain.to_sparse(), "sparse|type|layout|dense"),
        ("pt_quantised", _quantised(plain), "type|quanti"),
        ("pt_expanded", torch.zeros(1).expand(10**10, WIDTH), "expand|size|large|stor"),
        ("pt_expanded_rows", torch.zeros(1, WIDTH).expand(10**9, WIDTH), "expand|size|large|stor"),
        ("pt_list", [plain, plain], "features|tensor|list"),
        ("pt_number", 5, "features|tensor"),
        ("pt_none", None, "features|tensor"),
        ("pt_text", "features", "features|tensor"),
        ("pt_state_dict", torch.nn.Linear(2, 2).state_dict(), "features"),
        ("pt_numpy", {"features": FEATURES}, "features|readable|weights"),
        ("pt_nan", plain * float("nan"), "nan"),
        ("pt_bool", plain > 0, "type|bool"),
        ("pt_meta", torch.empty((COUNT, WIDTH), device="meta"), "meta|features|stor|readable"),
        ("pt_nested", {"features": {"features": plain}}, "features|shape"),
        ("pt_empty_dict", {}, "features"),
    ):
        yield bad(name, kind, f"{name}.pt", saved(content), words)
    yield bad("pt_evil", "hostile files", "evil.pt", pickled)
    yield bad(
        "pt_evil_zip",
        "hostile files",
        "evil_zip.pt",
        lambda path: torch.save({"features": Evil(path.with_name("executed2.txt"))}, path),
    )
    yield bad("pt_script", kind, "script.pt", script)
    yield bad("pt_tar", "hostile files", "tar.pt", tar)


def _quantised(values: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are going, files of them stay
        return torch.quantize_per_tensor(values, 0.1, 0, torch.qint8)
