"""How often a prediction opens feature files, and what it refuses and remarks."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.feature_file import EmptyBagError
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.prediction.feature_inputs import FeatureInput
from kd_mil.prediction.known_features import KnownFeatures

RNG = np.random.default_rng(0)
FEATURES = {name: RNG.normal(size=(5, 3)).astype(np.float32) for name in "abc"}
GRID = np.array([[x, 0] for x in range(0, 5 * 64, 64)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, features in FEATURES.items():
        write(tmp_path / f"{name}.h5", features)
    return tmp_path


def write(path: Path, features: np.ndarray, encoder: str = "uni") -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features).attrs["encoder"] = encoder
        file.create_dataset("coords", data=GRID[: len(features)]).attrs["patch_size_level0"] = 64
        file.attrs["kd_mil_bounds_offset"] = "[7, 9]"
    os.utime(path, (1e9, 1e9))


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    class Counted(h5py.File):
        def __init__(self, name: Path, *arguments: object, **named: object) -> None:
            names.append(Path(name).stem)
            super().__init__(name, *arguments, **named)

    monkeypatch.setattr(h5py, "File", Counted)
    return names


def known_in(folder: Path, **expected: object) -> KnownFeatures:
    return KnownFeatures(FeatureIndex(folder, folder / "cache"), {"width": 3, **expected}, torch.float16)


def test_a_new_file_is_opened_once_and_a_known_one_not_at_all(folder: Path, openings: list[str]) -> None:
    seen = []
    for expected in (["a", "b", "c"], []):
        openings.clear()
        with known_in(folder, encoder="uni") as known:
            for name in FEATURES:
                found = FeatureInput(name, folder / f"{name}.h5", known, 64).open()
                values = torch.cat(list(found.batches))
                assert found.geometry is not None
                seen.append((values.tolist(), found.geometry.coords.tolist(), found.geometry.bounds_offset))
        assert openings == expected
    assert seen[:3] == seen[3:]
    assert [one[0] for one in seen[:3]] == [features.astype(np.float16).tolist() for features in FEATURES.values()]
    assert seen[0][1:] == (GRID.tolist(), (7, 9))


def test_that_one_file_fits_is_found_out_before(folder: Path, openings: list[str]) -> None:
    write(folder / "a.h5", FEATURES["a"], "resnet18")
    (folder / "b.h5").write_bytes(b"damaged")
    paths = sorted(folder.glob("*.h5"))
    with known_in(folder, encoder="uni") as known:
        known.require_a_fit([*paths, folder / "gone.h5"])
        assert openings.count("c") == 1
        with pytest.raises(UserError, match=r"a\.h5 does not fit the checkpoint, encoder: 'resnet18', not 'uni'"):
            known.require_a_fit(paths[:2])
        with pytest.raises(UserError, match=r"a\.h5 does not fit the checkpoint, encoder"):
            known.open(paths[0])
    with known_in(folder, encoder="uni") as known:
        openings.clear()
        known.require_a_fit([paths[0], paths[2]])
        assert openings == ["c"], "what a file says that was refused is known"


def test_what_files_do_not_say_is_remarked_in_the_end(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    np.save(folder / "d.npy", FEATURES["a"])
    write(folder / "e.h5", FEATURES["a"][:0])
    with known_in(folder, encoder="uni", mpp=0.5) as known:
        known.open(folder / "a.h5")
        FeatureInput("d", folder / "d.npy", known, 64).open()
        with pytest.raises(EmptyBagError):
            known.open(folder / "e.h5")
    lines = [str(warning.message) for warning in recwarn]
    [compared] = [line for line in lines if line.startswith("not compared with the training features")]
    assert "mpp (2 of 2 files)" in compared
    assert "encoder (1 of 2 files)" in compared
    assert any(line.startswith("1 feature files without their slides") for line in lines)
