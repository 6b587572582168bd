import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.features.kather_mil import KatherMIL, read_labelled
from kd_mil.data.features.mil_benchmark import MILBenchmark, read_benchmark


def benchmark(root, name, **settings):
    module = MILBenchmark(name, str(root), "", Loading(), **settings)
    module.setup()
    return module


def write(path, **changes):
    arrays = {
        "X": np.arange(10, dtype=np.float32).reshape(5, 2),
        "bag": np.array([1, 0, 1, 2, 0]),
        "bag_label": np.array([0, 1, 1], dtype=np.uint8),
        "bag_name": np.array(["a ", "b", "c"]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_instances_of_a_bag_are_brought_together(tmp_path):
    bags = read_benchmark(write(tmp_path / "tiny.npz"))
    assert bags.bag_ids == ["a", "b", "c"]
    assert bags.sizes.tolist() == [2, 2, 1]
    assert bags.labels.tolist() == [0, 1, 1]
    assert bags.instances.tolist() == [[2, 3], [8, 9], [0, 1], [4, 5], [6, 7]]
    assert bags.instance_labels.tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bag": None}, "tiny.npz has no array 'bag'; it has X, bag_label, bag_name"),
        ({"bag": np.array([0, 0, 1, 1])}, "for each of 5 instances, one of 3 bags"),
        ({"bag": np.array([0, 0, 1, 1, 3])}, "for each of 5 instances, one of 3 bags"),
        ({"bag": np.array([0, 0, 1, 1, 1])}, "bag 'c' is empty"),
        ({"bag_label": np.array([0, 1, 2])}, "bag 'c' has label 2"),
        ({"bag_name": np.array(["a", "b", "a"])}, "bag id 'a' occurs more than once"),
        ({"X": np.full((5, 2), np.nan)}, "tiny.npz: NaN or infinite"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_benchmark(write(tmp_path / "tiny.npz", **changes))


def test_a_missing_benchmark_is_named(tmp_path):
    with pytest.raises(UserError, match=r"elephant.npz: no such feature file"):
        benchmark(tmp_path, "elephant")
    with pytest.raises(UserError, match="mil-benchmarks: download the sets Musk"):
        MILBenchmark("fox", None, str(tmp_path), Loading()).setup()


@pytest.mark.parametrize(
    ("name", "bags", "positive", "instances", "width", "smallest", "largest"),
    [
        ("musk2", 102, 39, 6598, 166, 1, 1044),
        ("fox", 200, 100, 1320, 230, 2, 13),
        ("tiger", 200, 100, 1220, 230, 1, 13),
    ],
)
def test_the_published_sets(shared_data, name, bags, positive, instances, width, smallest, largest):
    module = benchmark(shared_data("mil-benchmarks"), name, fold=3)
    assert len(module.bags) == bags
    assert int(module.bags.labels.sum()) == positive
    assert module.bags.instances.shape == (instances, width)
    assert [int(module.bags.sizes.min()), int(module.bags.sizes.max())] == [smallest, largest]
    assert len(module.splits.test) in (bags // 10, bags // 10 + 1)
    assert module.bags.instances.isfinite().all()


def test_features_are_standardised_by_the_training_instances(shared_data):
    root = shared_data("mil-benchmarks")
    raw, scaled = benchmark(root, "tiger", standardise=False), benchmark(root, "tiger")
    train = raw.bags.instances_of(raw.splits.train)
    oracle = StandardScaler().fit(raw.bags.instances[train].double()).transform(raw.bags.instances.double())
    torch.testing.assert_close(scaled.bags.instances.double(), torch.from_numpy(oracle), rtol=1e-3, atol=1e-3)


def test_a_split_file_decides_what_features_are_standardised_by(tmp_path):
    names = [f"b{number}" for number in range(8)]
    values = np.array([[1.0], [3.0], [100.0], [7.0], [2.0], [2.0], [2.0], [2.0]])
    labels = np.arange(8) % 2
    write(tmp_path / "tiny.npz", X=values, bag=np.arange(8), bag_label=labels, bag_name=np.array(names))
    parts = ["train", "train", "val", "test", "test", "test", "test", "val"]
    rows = [f"{name},{part}" for name, part in zip(names, parts, strict=True)]
    (tmp_path / "split.csv").write_text("\n".join(["bag_id,split", *rows]))
    module = benchmark(tmp_path, "tiny", num_folds=2, val_fraction=0.25, split_file=str(tmp_path / "split.csv"))
    module.setup()
    assert module.bags.instances.flatten().tolist() == [-1, 1, 98, 5, 0, 0, 0, 0]


def test_labelled_features_are_cut_into_bags(tmp_path):
    features, labels = np.arange(400.0).reshape(200, 2), np.arange(200) % 4
    np.savez(tmp_path / "features.npz", X=features, y=labels, class_name=np.array(list("abcd")))
    module = KatherMIL(["d"], str(tmp_path), "", Loading(), standardise=False, bag_length=5, positive_ratio=0.2)
    module.setup()
    bags = module.bags
    assert torch.equal(bags.instance_labels, (bags.instances[:, 0] % 8 == 6).long())
    assert bags.instances[:, 0].unique().numel() == len(bags.instances)
    np.savez(tmp_path / "features.npz", X=features, y=labels, class_name=np.array(list("abc")))
    with pytest.raises(UserError, match="for each of 200 instances, one of 3 classes"):
        read_labelled(tmp_path / "features.npz")


@pytest.mark.parametrize(("ratio", "within"), [(0.05, 1), (0.1, 2), (0.2, 4), (0.5, 10)])
def test_texture_features_of_real_tiles(shared_data, ratio, within):
    root = str(shared_data("kather2016-texture-features"))
    module = KatherMIL(["01_TUMOR"], root, "", Loading(), bag_length=20, positive_ratio=ratio)
    module.setup()
    bags = module.bags
    positives = torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.bag_of_instance, bags.instance_labels.long())
    assert torch.equal(positives, within * bags.labels)
    assert all(set(bags.labels[part].tolist()) == {0, 1} for part in module.splits[1:])
    train = bags.instances[bags.instances_of(module.splits.train)]
    assert float(train.mean(0).abs().max()) < 1e-3
    with pytest.raises(UserError, match=r"'TUMOR' is not in the data; known: 01_TUMOR.*did you mean '01_TUMOR'\?"):
        KatherMIL(["TUMOR"], root, "", Loading()).setup()
