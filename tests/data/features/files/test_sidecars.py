"""Features of slide2vec and soma: found, placed on their slide, and known by what made them."""

import json

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.features.files.facts import inspect
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.layouts import feature_files, feature_table
from kd_mil.data.features.files.provenance import differences, read_source

RECORD = {
    "artifact_type": "tile_embeddings",
    "encoder_name": "virchow2",
    "tile_size_lv0": 448,
    "requested_tile_size_px": 224,
    "requested_spacing_um": 0.5,
    "coordinates_npz_path": "/nowhere/s1.coordinates.npz",
    "compatibility": {"encoder_name": "virchow2", "output_variant": "cls_patch_mean", "transform": {"resize": None}},
}


@pytest.fixture(params=["pt", "npz"])
def written(tmp_path, request):
    """An output folder with one slide of five tiles, one of none, and what else slide2vec leaves."""
    features, folder = np.arange(20, dtype=np.float32).reshape(5, 4), tmp_path / "tile_embeddings"
    for name in ("tile_embeddings", "tiles", "slide_embeddings"):
        (tmp_path / name).mkdir()
    if request.param == "pt":
        torch.save(torch.from_numpy(features), folder / "s1.pt")
    else:
        np.savez_compressed(folder / "s1.npz", features=features, tile_index=np.arange(5))
    for name in ("s1", "empty"):
        (folder / f"{name}.meta.json").write_text(json.dumps({"sample_id": name, **RECORD}))
    x, y = np.arange(5) * 448, np.arange(5) * 448 + 10
    np.savez_compressed(tmp_path / "tiles" / "s1.coordinates.npz", tile_index=np.arange(5), x=x, y=y)
    (tmp_path / "tiles" / "s1.coordinates.meta.json").write_text("{}")
    (tmp_path / "process_list.csv").write_text("sample_id\ns1\n")
    return tmp_path


def test_features_positions_and_tile_size(written):
    files = feature_files(written)
    assert list(files) == ["s1"]
    file = FeatureFile(files["s1"])
    assert file.read_all(torch.float32).tolist() == np.arange(20).reshape(5, 4).tolist()
    assert file.coords().tolist() == [[448 * index, 448 * index + 10] for index in range(5)]
    assert file.stated.size_level0 == 448
    assert file.stated.micrometres is None


def test_the_table_of_labels_names_the_slides(written):
    (written / "labels.csv").write_text("slide_id,label\ns1,1\n")
    table, folder = feature_table(written, written / "labels.csv")
    assert (folder / table["feature_path"].iloc[0]).stem == "s1"


def test_what_made_them_is_known_and_compared(written):
    path = feature_files(written)["s1"]
    source = read_source(path, 4)
    expected = {"encoder": "virchow2", "output": "cls_patch_mean", "tile_size": 224, "mpp": 0.5, "width": 4}
    assert {name: source[name] for name in expected} == expected
    assert inspect(path, None)[0].source == source
    assert differences(source, source | {"output": "cls"}) == ["output: 'cls', not 'cls_patch_mean'"]


def test_a_changed_record_or_table_of_tiles_is_another_file(written):
    path = feature_files(written)["s1"]
    before = inspect(path, None)[0].identity
    record = written / "tile_embeddings" / "s1.meta.json"
    record.write_text(record.read_text().replace("virchow2", "virchow"))
    changed = inspect(path, None)[0].identity
    (written / "tiles" / "s1.coordinates.npz").unlink()
    facts = inspect(path, None)[0]
    assert len({before, changed, facts.identity}) == 3
    assert not facts.has_coords


def test_tiles_of_an_annotated_class_lie_in_its_folder(written):
    path = feature_files(written)["s1"]
    for kind, name in (("tile_embeddings", path.name), ("tiles", "s1.coordinates.npz")):
        (written / kind / "tumour").mkdir()
        (written / kind / name).rename(written / kind / "tumour" / name)
    moved = written / "tile_embeddings" / "tumour" / path.name
    assert feature_files(written / "tile_embeddings" / "tumour") == {"s1": moved}
    assert FeatureFile(moved).coords()[1].tolist() == [448, 458]


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_damaged_record_is_one_line(written, content):
    path = feature_files(written)["s1"]
    (written / "tile_embeddings" / "s1.meta.json").write_text(content)
    with pytest.raises(UserError, match=r"s1\.meta\.json"):
        read_source(path)


def test_tiles_must_be_as_many_as_features(written):
    path = feature_files(written)["s1"]
    np.savez(written / "tiles" / "s1.coordinates.npz", x=np.arange(4), y=np.arange(4))
    with pytest.raises(UserError, match=r"coords .*\(4, 2\)"):
        FeatureFile(path).coords()


def test_what_the_library_itself_writes(tmp_path):
    library = pytest.importorskip("slide2vec.artifacts")
    features = torch.rand(5, 4)
    for kind in ("pt", "npz"):
        library.write_tile_embeddings(
            kind, features, output_dir=tmp_path, output_format=kind, metadata=RECORD, tile_index=np.arange(5)
        )
    files = feature_files(tmp_path)
    assert sorted(files) == ["npz", "pt"]
    for path in files.values():
        assert torch.equal(FeatureFile(path).read_all(torch.float32), features)
        assert read_source(path)["output"] == "cls_patch_mean"
