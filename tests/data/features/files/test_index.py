import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.index import NAME, FeatureIndex

SIZES = [3, 1, 4, 2, 5, 2]
LONG_AGO = time.time_ns() - 3600 * 10**9
RNG = np.random.default_rng(0)
FEATURES = [RNG.normal(size=(size, 6)).astype(np.float32) for size in SIZES]


def write(path, features, changed=LONG_AGO, chunked=False, **arrays):
    """A feature file that was last changed at a given time (ns since 1970)."""
    options = {"chunks": (1, features.shape[1]), "compression": "gzip"} if chunked else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, **options)
        file["coords"] = arrays.pop("coords", np.arange(2 * len(features)).reshape(-1, 2))
        for name, array in arrays.items():
            file[name] = array
    os.utime(path, ns=(changed, changed))


@pytest.fixture(params=["contiguous", "chunked"])
def slides(tmp_path, request):
    """Six slides; the odd ones, of the second class, have tumour fractions; a manifest."""
    rows = ["slide_id,label,split,feature_path"]
    for number, features in enumerate(FEATURES):
        marks = {"tumour_fraction": np.linspace(0, 1, len(features), dtype=np.float32)} if number % 2 else {}
        write(tmp_path / f"s{number}.h5", features, chunked=request.param == "chunked", **marks)
        rows.append(f"s{number},{number % 2},{('train', 'val', 'test')[number // 2]},s{number}.h5")
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    return tmp_path


def load(folder, gib=0.0, **settings):
    data = FeatureBags(
        str(folder / "slides.csv"), Loading(resident_gib=gib), cache_dir=str(folder / "cache"), **settings
    )
    data.setup()
    return data


@pytest.fixture
def openings(monkeypatch):
    """Paths of the HDF5 files that are opened from now on."""
    paths = []

    class Counted(h5py.File):
        def __init__(self, name, *arguments, **named):
            paths.append(os.path.basename(name))
            super().__init__(name, *arguments, **named)

    monkeypatch.setattr(h5py, "File", Counted)
    return paths


def contents(data):
    """All that a data set holds, as plain values."""
    bags, everything = data.bags, torch.arange(sum(SIZES))
    return {
        "features": bags.instances[everything].tolist(),
        "coords": bags.coords[everything].tolist(),
        "labels": bags.instance_labels.tolist(),
        "source": data.instance_source,
        "rows": data.split_rows(),
    }


@pytest.mark.parametrize("gib", [0, 1])
def test_a_known_file_gives_what_a_new_one_gave(slides, gib):
    new = contents(load(slides, gib))
    assert (slides / NAME).is_file()
    assert contents(load(slides, gib)) == new
    expected = np.concatenate(FEATURES).astype(np.float16)
    np.testing.assert_array_equal(np.array(new["features"], np.float16), expected)


def test_a_new_file_is_opened_once_and_a_known_one_not_at_all(slides, openings):
    load(slides).split_rows()
    assert sorted(set(openings)) == [f"s{number}.h5" for number in range(6)]
    first = len(openings)
    is_raw = layout(slides / "s0.h5") == h5py.h5d.CONTIGUOUS
    assert first <= (6 if is_raw else 12)  # in chunks, the first and last rows for splits.csv are read once more
    openings.clear()
    load(slides).split_rows()
    assert openings == []
    load(slides, gib=1)
    assert len(openings) == (0 if is_raw else 6), "features in chunks are read by their library, once"


def layout(path):
    with h5py.File(path) as file:
        return file["features"].id.get_create_plist().get_layout()


def test_a_changed_file_is_read_anew(slides, openings):
    load(slides)
    openings.clear()
    write(slides / "s4.h5", FEATURES[4] + 1, changed=LONG_AGO + 1)
    data = load(slides)
    assert set(openings) == {"s4.h5"}
    start = sum(SIZES[:4])
    changed = data.bags.instances[torch.arange(start, start + 5)]
    np.testing.assert_array_equal(changed, (FEATURES[4] + 1).astype(np.float16))
    write(slides / "s4.h5", np.full((5, 6), np.nan), changed=LONG_AGO + 2)
    with pytest.raises(UserError, match=r"s4\.h5: NaN"):
        load(slides)


def test_a_file_changed_just_now_is_not_trusted(slides, openings):
    """It may change again within one tick of the clock of its file system."""
    write(slides / "s0.h5", FEATURES[0], changed=time.time_ns())
    load(slides)
    openings.clear()
    load(slides)
    assert set(openings) == {"s0.h5"}


def test_a_file_that_changes_after_the_start_ends_the_run(slides):
    data = load(slides)
    write(slides / "s0.h5", FEATURES[0], changed=LONG_AGO + 1)
    with pytest.raises(UserError, match=r"s0\.h5 was changed after it had been checked: start again"):
        data.bags.instances[torch.tensor([0])]


def test_settings_decide_anew_over_known_files(slides):
    write(slides / "s1.h5", np.full((1, 6), 1e6, np.float32), tumour_fraction=np.array([0.5], np.float32))
    assert float(load(slides, dtype="float32").bags.instances[torch.tensor([3])].max()) == 1e6
    for gib in (0, 1):
        with pytest.raises(UserError, match=r"s1\.h5: features up to 1e\+06 are too large"):
            load(slides, gib)
    labels = [load(slides, dtype="float32", tumour_threshold=share).bags.instance_labels[3] for share in (0.4, 0.6)]
    assert labels == [1, 0]


def test_positions_beside_a_file_belong_to_it(tmp_path):
    """torchmil keeps coordinates in a file of their own: a change of that one counts."""
    for folder in ("features", "coords"):
        (tmp_path / folder).mkdir()
    path, beside = tmp_path / "features" / "a.npy", tmp_path / "coords" / "a.npy"
    np.save(path, FEATURES[0])
    np.save(beside, np.zeros((3, 2), int))
    for file in (path, beside):
        os.utime(file, ns=(LONG_AGO, LONG_AGO))
    with FeatureIndex(tmp_path, tmp_path) as index:
        index.inspect(path, None)
        assert index.known([path])[0] is not None
        os.utime(beside, ns=(LONG_AGO + 1, LONG_AGO + 1))
        assert index.known([path]) == [None]


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(slides, openings):
    (slides / f"{NAME}.lock").mkdir()
    load(slides)
    assert not (slides / NAME).exists()
    openings.clear()
    load(slides)
    assert openings == []


def test_without_a_place_for_the_index_a_warning_says_so(slides):
    (slides / f"{NAME}.lock").mkdir()
    (slides / "cache").write_text("a file, no folder")
    with pytest.warns(UserWarning, match=r"can be kept neither in .*set paths\.cache_dir=FOLDER"):
        load(slides)


@pytest.mark.parametrize("damage", ["{", '{"kd_mil_feature_index": 3}\n["s0.h5", {"width": 6}]'])
def test_a_damaged_index_is_made_anew(slides, damage):
    load(slides)
    (slides / NAME).write_text(damage)
    with pytest.warns(UserWarning, match="cannot be read"):
        load(slides)
    assert len((slides / NAME).read_text().splitlines()) == 7


def test_several_writers_lose_nothing(slides):
    """Each reads one file; the index holds all of them."""

    def read(number):
        with FeatureIndex(slides, slides / "cache") as index:
            index.inspect(slides / f"s{number}.h5", None)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(6)))
    header, *lines = (slides / NAME).read_text().splitlines()
    assert json.loads(header) == {"kd_mil_feature_index": 3}
    assert [json.loads(line)[0] for line in lines] == [f"s{number}.h5" for number in range(6)]


def test_files_of_the_same_features_are_twins_whatever_their_names(slides):
    write(slides / "s2.h5", FEATURES[0])
    with (
        pytest.warns(UserWarning, match=r"'s0' and 's2' are the same file"),
        pytest.raises(UserError, match=r"'s0' \(.*\) and 's2' \(.*\) have the same content"),
    ):
        load(slides)
