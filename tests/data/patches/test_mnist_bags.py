import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.mnist_bags import MnistBags


def load(root, **settings):
    module = MnistBags(str(root), "", Loading(), **settings)
    module.setup()
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive like MNIST's whose images hold their part and their number."""
    generator = np.random.default_rng(0)
    arrays = {}
    for number, (part, count) in enumerate((("train", 10_400), ("test", 300))):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = number, np.arange(count) // 256, np.arange(count) % 256
        arrays |= {f"x_{part}": images, f"y_{part}": generator.integers(0, 10, count).astype(np.uint8)}
    path = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    np.savez(path, **arrays)
    return path


def parts_of(module):
    splits = module.splits
    return {part: splits.bags.batch(getattr(splits, part)) for part in ("train", "val", "test")}


def test_parts_never_share_an_image(archive):
    module = load(archive, num_train_bags=50, num_val_bags=40, num_test_bags=30)
    seen = {}
    for part, batch in parts_of(module).items():
        corner = batch.instances[:, 0, 0, :3].long()
        seen[part] = set((corner[:, 0] * 100_000 + corner[:, 1] * 256 + corner[:, 2]).tolist())
    assert max(seen["train"]) < 400 <= min(seen["val"])
    assert max(seen["val"]) < 100_000 <= min(seen["test"])


@pytest.mark.parametrize("balanced", [True, False])
def test_a_bag_is_positive_if_it_holds_the_digit(archive, balanced):
    bags = load(archive, num_train_bags=60, balanced=balanced, positive_digit=3).bags
    for label, own in zip(bags.labels, bags.instance_labels.split(bags.sizes.tolist()), strict=True):
        assert int(label) == int(own.max())
    if balanced:
        assert bags.labels[:60].tolist() == [1, 0] * 30


def test_bag_sizes_follow_the_papers_gaussian_and_say_nothing_about_the_label(archive):
    for mean in (10.0, 20.0):
        bags = load(archive, num_train_bags=4000, mean_size=mean).bags
        sizes, labels = bags.sizes[:4000].double(), bags.labels[:4000]
        assert float(sizes.mean()) == pytest.approx(mean, abs=0.15)
        assert float(sizes.var()) == pytest.approx(5 + 1 / 12, abs=0.5)  # rounding adds a twelfth
        assert float(sizes[labels == 1].mean() - sizes[labels == 0].mean()) == pytest.approx(0, abs=0.25)


def test_without_balance_the_label_is_left_to_chance(archive):
    labels = load(archive, num_train_bags=3000, balanced=False).bags.labels[:3000]
    assert 0.55 < float(labels.double().mean()) < 0.75


def test_more_training_bags_keep_the_others(archive):
    few, many = (load(archive, num_train_bags=count, num_val_bags=20, num_test_bags=20) for count in (20, 50))
    first, second = parts_of(few), parts_of(many)
    for part in ("val", "test"):
        assert torch.equal(first[part].instances, second[part].instances)
    size = len(first["train"].instances)
    assert torch.equal(first["train"].instances, second["train"].instances[:size])
    assert few.fingerprint() != many.fingerprint()
    other = load(archive, num_train_bags=20, num_val_bags=20, num_test_bags=20, seed=1)
    assert not torch.equal(other.bags.sizes, few.bags.sizes)


def test_mistakes_are_named(archive, tmp_path):
    for settings, message in (
        ({"positive_digit": 10}, "data.positive_digit=10"),
        ({"mean_size": 0.5}, "data.mean_size=0.5: must be at least 1"),
        ({"num_val_bags": 1}, "data.num_val_bags=1: at least 2"),
    ):
        with pytest.raises(UserError, match=message):
            MnistBags(str(archive), "", Loading(), **settings)
    with pytest.raises(UserError, match=r"mnist.npz: download MNIST.*torchvision"):
        MnistBags(None, str(tmp_path), Loading()).setup()
    with pytest.raises(UserError, match="holds no MNIST"):
        load(tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not an archive of x_train"):
        load(tmp_path)
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((5, 28, 28)), y_train=np.zeros(5), x_test=[0], y_test=[0])
    with pytest.raises(UserError, match="holds 5 training images, MNIST has 60000"):
        load(tmp_path)
    flat = {"x_train": np.zeros((10_001, 784)), "y_train": np.zeros(10_001), "x_test": [0], "y_test": [0]}
    np.savez(tmp_path / "mnist.npz", **flat)
    with pytest.raises(UserError, match=r"shape \(10001, 784\) and type torch.float64 for 10001 labels, MNIST has"):
        load(tmp_path)


def test_a_label_that_bags_of_this_size_never_have_is_refused(archive):
    few = {"num_train_bags": 2, "num_val_bags": 2, "num_test_bags": 2}
    with pytest.raises(UserError, match=r"data.mean_size=500: 10000 bags of \d+ digits are all with a 9"):
        load(archive, mean_size=500, **few)


def test_the_papers_protocol_on_real_digits(shared_data):
    module = load(shared_data("mnist"), num_train_bags=500, mean_size=20.0)
    bags, splits = module.bags, module.splits
    assert [len(part) for part in splits[1:]] == [500, 1000, 1000]
    assert bags.instance_shape == (1, 28, 28)
    assert [int(bags.labels[part].sum()) for part in splits[1:]] == [250, 500, 500]
    pixels = bags.instances.double() / 255
    assert float(pixels.mean()) == pytest.approx(0.1307, abs=0.003)
    low, high = (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081
    assert [round(low, 3), round(high, 3)] == [-0.424, 2.821]


def test_torchvisions_folder_is_read(archive, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    with np.load(archive) as arrays:
        stored = {part: (torch.from_numpy(arrays[f"x_{part}"]), arrays[f"y_{part}"]) for part in ("train", "test")}

    def fill(self, root, train):
        self.data, labels = stored["train" if train else "test"]
        self.targets = torch.from_numpy(labels).long()

    monkeypatch.setattr(MNIST, "__init__", fill)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert load(tmp_path / "MNIST", num_train_bags=20).fingerprint() == load(archive, num_train_bags=20).fingerprint()
