import warnings

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.feature_bags import FeatureBags
from kd_mil.data.features.files.file_set import FeatureFiles

SIZES = [3, 1, 4, 2, 5, 2, 3, 3]


@pytest.fixture
def slides(tmp_path):
    """Eight slides of four cases as HDF5 files; the features of slide s are all s."""
    for number, size in enumerate(SIZES):
        write_slide(tmp_path / f"s{number}.h5", np.full((size, 6), number, dtype=np.float32))
    return tmp_path


def write_slide(path, features, **arrays):
    arrays.setdefault("coords", np.arange(2 * len(features)).reshape(-1, 2))
    with h5py.File(path, "w") as file:
        file["features"] = features
        for name, array in arrays.items():
            file[name] = array


def write_manifest(folder, **columns):
    table = {
        "slide_id": [f"s{number}" for number in range(len(SIZES))],
        "label": [number % 2 for number in range(len(SIZES))],
        "feature_path": [f"s{number}.h5" for number in range(len(SIZES))],
    } | columns
    rows = [",".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    (folder / "slides.csv").write_text("\n".join([",".join(table), *rows]))
    return str(folder / "slides.csv")


def load(manifest, loading=None, **settings):
    module = FeatureBags(manifest, loading or Loading(), **settings)
    module.setup()
    return module


SPLIT = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def test_slides_become_bags(slides):
    module = load(write_manifest(slides, split=SPLIT), classes={"0": 0, "1": 1})
    bags = module.bags
    assert bags.bag_ids == [f"s{number}" for number in range(8)]
    assert bags.sizes.tolist() == SIZES
    assert bags.instances.dtype == torch.float16
    assert bags.instances[:, 0].tolist() == bags.bag_of_instance.tolist()
    assert bags.batch(torch.tensor([3])).coords.tolist() == [[0, 1], [2, 3]]
    assert bags.instance_labels.tolist() == [-1] * sum(SIZES)
    assert [part.tolist() for part in module.splits[1:]] == [[0, 1, 2, 3], [4, 5], [6, 7]]


def test_coordinates_in_micrometres_are_scaled_by_the_manifests_mpp(slides):
    """256 µm are 512 level-0 pixels of 0.5 µm, and 1024 of 0.25 µm."""
    for number in range(8):
        write_slide(slides / f"s{number}.h5", np.full((2, 6), number), coords=np.array([[0.0, 0.0], [256.0, 512.0]]))
        with h5py.File(slides / f"s{number}.h5", "a") as file:
            file.attrs.update({"unit": "um", "tile_size": 256.0})
    bags = load(write_manifest(slides, split=SPLIT, mpp=[0.5] * 7 + [0.25])).bags
    assert bags.batch(torch.tensor([0])).coords.tolist() == [[0, 0], [512, 1024]]
    assert bags.batch(torch.tensor([7])).coords.tolist() == [[0, 0], [1024, 2048]]
    with pytest.raises(UserError, match=r"slides\.csv, line 3: mpp 'fine' is no positive number"):
        load(write_manifest(slides, split=SPLIT, mpp=[0.5, "fine", *[0.5] * 6]))


@pytest.mark.parametrize("columns", [{"split": SPLIT}, {"fold": [0, 0, 1, 1, 2, 2, 2, 2]}, {}])
def test_features_of_one_slide_are_in_one_part_under_whatever_ids(slides, tmp_path, columns):
    """s0 and s6 hold the same; whether a column, folds or a split file put them in two parts."""
    write_slide(slides / "s6.h5", np.zeros((3, 6)), coords=np.arange(6).reshape(-1, 2))
    write_slide(slides / "s0.h5", np.zeros((3, 6)), coords=np.arange(6).reshape(-1, 2))
    manifest = write_manifest(slides, **columns)
    (tmp_path / "split.csv").write_text("bag_id,split\n" + "\n".join(f"s{n},{SPLIT[n]}" for n in range(8)))
    settings = {} if columns else {"split_file": str(tmp_path / "split.csv")}
    with pytest.raises(UserError, match=r"^'s0' \((train|test)\) and 's6' \(t.*\) have the same content: keep one"):
        load(manifest, num_folds=4, **settings)


def test_instance_labels_are_read_where_they_are(slides):
    write_slide(slides / "s3.h5", np.zeros((2, 6)), inst_labels=[1, 0])
    bags = load(write_manifest(slides, split=SPLIT)).bags
    assert bags.batch(torch.tensor([3])).instance_labels.tolist() == [1, 0]
    assert bags.batch(torch.tensor([4])).instance_labels.tolist() == [-1] * 5


def test_instance_labels_contradict_neither_classes_nor_bags(slides):
    manifest = write_manifest(slides, split=SPLIT)
    for value in (2, 7, -2):
        write_slide(slides / "s3.h5", np.zeros((2, 6)), inst_labels=[value, 0])
        with pytest.raises(UserError, match=r"s3\.h5: instance label"):
            load(manifest)
    write_slide(slides / "s3.h5", np.zeros((2, 6)))
    for arrays in ({"inst_labels": [1, 0]}, {"tumour_fraction": [0.1, 0.9]}):
        write_slide(slides / "s2.h5", np.zeros((2, 6)), **arrays)
        with pytest.raises(UserError, match=r"s2\.h5: 1 positive instance labels in a bag labelled '0'"):
            load(manifest)
        assert int((load(manifest, negatives_known=False).bags.instance_labels == 1).sum()) == 1


def test_large_sets_stay_in_their_files(slides, tmp_path):
    manifest = write_manifest(slides, split=SPLIT)
    resident, lazy = load(manifest), load(manifest, Loading(resident_gib=0), cache_dir=str(tmp_path))
    assert isinstance(lazy.bags.instances, FeatureFiles)
    assert lazy.bags.nbytes == resident.bags.nbytes
    order = torch.tensor([5, 0, 7])
    assert torch.equal(lazy.bags.batch(order).instances, resident.bags.batch(order).instances)
    assert next(iter(lazy.bag_loader())).coords is None, "training does not read positions"
    assert torch.equal(next(iter(lazy.val_dataloader())).coords, next(iter(resident.val_dataloader())).coords)
    positions = torch.tensor([20, 1, 9, 1])
    assert torch.equal(lazy.bags.instance_batch(positions).instances, resident.bags.instance_batch(positions).instances)


def test_without_a_val_part_training_cases_are_held_out(slides):
    cases = ["p", "q", "p", "q", "r", "t", "u", "v"]
    manifest = write_manifest(slides, case_id=cases, split=["train"] * 6 + ["test"] * 2)
    module = load(manifest, val_fraction=0.25)
    assert module.splits.test.tolist() == [6, 7]
    assert len(module.splits.val) >= 2
    train, val = ({cases[slide] for slide in part.tolist()} for part in module.splits[1:3])
    assert not train & val


def test_folds_are_made_or_taken_from_the_manifest(slides):
    made = load(write_manifest(slides), fold=1, num_folds=2, val_fraction=0.25)
    assert [len(part) for part in made.splits[1:]] == [2, 2, 4]
    given = write_manifest(slides, fold=[0, 0, 1, 1, 2, 2, 3, 3], split=SPLIT)
    assert load(given, fold=1, val_fraction=0.25).splits.test.tolist() == [2, 3]
    assert load(given).splits.test.tolist() == [6, 7]
    with pytest.raises(UserError, match=r"data.fold=4: the column `fold` has 0, 1, 2, 3"):
        load(given, fold=4)


def test_without_split_or_fold_the_first_fold_is_tested(slides):
    settings = {"num_folds": 2, "val_fraction": 0.25}
    manifest = write_manifest(slides)
    first, default = load(manifest, fold=0, **settings).splits.test, load(manifest, **settings).splits.test
    assert torch.equal(first, default)


def test_a_split_file_has_the_last_word(slides):
    (slides / "split.csv").write_text(
        "bag_id,split\n" + "\n".join(f"s{number},{split}" for number, split in enumerate(reversed(SPLIT)))
    )
    module = load(write_manifest(slides, split=SPLIT), split_file=str(slides / "split.csv"))
    assert module.splits.test.tolist() == [0, 1]


def test_single_precision_on_request(slides):
    write_slide(slides / "s2.h5", np.full((4, 6), 1e6))
    manifest = write_manifest(slides, split=SPLIT)
    with pytest.raises(UserError, match=r"s2.h5: features up to 1e\+06 .* set data.dtype=float32"):
        load(manifest)
    assert float(load(manifest, dtype="float32").bags.instances.max()) == 1e6


def test_coordinates_that_are_partly_there_are_left_out(slides):
    with h5py.File(slides / "s5.h5", "a") as file:
        del file["coords"]
    with pytest.warns(UserWarning, match="1 of 8 feature files have no coords"):
        module = load(write_manifest(slides, split=SPLIT))
    assert module.bags.coords is None


def test_no_coordinates_at_all_are_nothing_to_warn_of(slides):
    for number in range(8):
        np.save(slides / f"s{number}.npy", np.full((2, 6), number))
    manifest = write_manifest(slides, split=SPLIT, feature_path=[f"s{number}.npy" for number in range(8)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(manifest).bags.coords is None


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.full((2, 6), np.nan), "s4.h5: NaN or infinite features in instance 0"),
        (np.zeros((2, 7)), "s4.h5 has 7 features per instance, .*s0.h5 has 6: use one encoder"),
        (np.zeros((0, 6)), "s4.h5 is an empty bag"),
    ],
)
def test_a_bad_slide_is_named(slides, features, message):
    write_slide(slides / "s4.h5", features)
    with pytest.raises(UserError, match=message):
        load(write_manifest(slides, split=SPLIT))


def test_a_case_in_two_parts_is_refused(slides):
    manifest = write_manifest(slides, case_id=["p", "q", "r", "t", "u", "v", "w", "q"], split=SPLIT)
    with pytest.raises(UserError, match="case 'q' is in both train and test"):
        load(manifest)


def test_a_manifest_must_be_given():
    with pytest.raises(UserError, match=r"data.manifest is not set"):
        load(None)


def test_large_sets_are_read_through_before_training(slides, tmp_path):
    """NaN in the last file of a set that stays on disk is found by setup."""
    broken = np.full((3, 6), 7, dtype=np.float32)
    broken[2, 4] = np.nan
    write_slide(slides / "s7.h5", broken)
    with pytest.raises(UserError, match=r"s7\.h5: NaN or infinite features in instance 2"):
        load(write_manifest(slides, split=SPLIT), Loading(resident_gib=0))
