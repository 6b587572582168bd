import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches.cifar10_mil import Cifar10MIL
from kd_mil.data.patches.class_folder_mil import ClassFolderMIL
from kd_mil.data.patches.crc_mil import CrcMIL
from kd_mil.data.patches.image_files import ImageFiles


def fill(root, counts, size=2):
    """Class folders whose images have the number of their class in every pixel."""
    for value, (name, count) in enumerate(sorted(counts.items())):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(root / name / f"{number:03}.png")


def make(tmp_path, kind=ClassFolderMIL, positive=("tumour",), root="set", loading=None, **settings):
    settings = {"bag_length": 5, "positive_ratio": 0.2} | settings
    root = None if root is None else str(tmp_path / root)
    return kind(list(positive), root, str(tmp_path), str(tmp_path / "cache"), loading or Loading(), **settings)


def test_class_folders_are_divided_class_by_class(tmp_path):
    fill(tmp_path / "set", {"stroma": 50, "mucosa": 50, "tumour": 50})
    module = make(tmp_path, test_fraction=0.3)
    module.setup()
    bags = module.bags
    assert torch.equal(bags.instance_labels, (bags.instances[:, 0, 0, 0] == 2).long())
    parts = module.read()
    assert parts["train"].labels.bincount().tolist() == [35] * 3
    assert parts["test"].labels.bincount().tolist() == [15] * 3
    assert not set(parts["train"].instances.paths) & set(parts["test"].instances.paths)


def test_train_val_and_test_folders_are_kept(tmp_path):
    for part, count in {"train": 40, "val": 20, "test": 10}.items():
        fill(tmp_path / "set" / part, {"normal": count, "tumour": count})
    module = make(tmp_path)
    module.setup()
    names = [{module.bags.bag_ids[bag].split("_")[0] for bag in part.tolist()} for part in module.splits[1:]]
    assert names == [{"train"}, {"val"}, {"test"}]


def test_without_a_val_folder_training_bags_are_held_out(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / "set" / part, {"normal": 90, "tumour": 20})
    module = make(tmp_path, val_fraction=0.2)
    module.setup()
    assert [len(part) for part in module.splits[1:]] == [16, 4, 20]
    assert all(module.bags.bag_ids[bag].startswith("train") for bag in module.splits.val.tolist())


def test_images_beyond_the_limit_stay_in_files(tmp_path):
    fill(tmp_path / "set", {"normal": 60, "tumour": 20})
    resident, lazy = make(tmp_path), make(tmp_path, loading=Loading(resident_gib=0))
    for module in (resident, lazy):
        module.setup()
    assert isinstance(lazy.bags.instances, ImageFiles)
    everything = torch.arange(len(lazy.bags))
    assert torch.equal(lazy.bags.batch(everything).instances, resident.bags.batch(everything).instances)


def test_train_without_test_is_refused(tmp_path):
    fill(tmp_path / "set" / "train", {"normal": 5, "tumour": 5})
    with pytest.raises(UserError, match="holds train, but both train and test are needed"):
        make(tmp_path).setup()


def test_an_unknown_class_is_refused(tmp_path):
    fill(tmp_path / "set", {"normal": 5, "tumour": 5})
    with pytest.raises(UserError, match=r"'tumor' is not in the data; known: normal, tumour; did you mean 'tumour'\?"):
        make(tmp_path, positive=["tumor"]).setup()


def test_a_root_must_be_given_and_exist(tmp_path):
    with pytest.raises(UserError, match=r"data.root is not set"):
        make(tmp_path, root=None).setup()
    with pytest.raises(UserError, match=r"nowhere does not exist: point it to a folder of class folders"):
        make(tmp_path, root="nowhere").setup()


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Cifar10MIL, "cifar10 or .*cifar10-jpg: download CIFAR-10"), (CrcMIL, "download NCT-CRC-HE-100K .*Zenodo")],
)
def test_a_missing_set_says_what_to_download(tmp_path, kind, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, kind, root=None).setup()


def test_crc_is_found_under_the_data_folder(tmp_path):
    fill(
        tmp_path / "NCT-CRC-HE-100K",
        dict.fromkeys(["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"], 20),
    )
    module = make(tmp_path, CrcMIL, positive=["TUM"], root=None)
    module.setup()
    assert torch.equal(module.bags.instance_labels, (module.bags.instances[:, 0, 0, 0] == 8).long())


@pytest.fixture
def torchvision_download(tmp_path, monkeypatch):
    """A CIFAR-10 of 300 + 200 random images in the layout of the download, its checksums made known."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(count):
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [number % 10 for number in range(count)]}

    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", batch(300))])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch(200))])
    name, checksum = write("batches.meta", {"label_names": [f"class{number}" for number in range(9)] + ["truck"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return tmp_path / "data"


@pytest.mark.parametrize("root", [None, "data", "data/cifar-10-batches-py"])
def test_cifar_from_torchvision(torchvision_download, root):
    root = None if root is None else str(torchvision_download.parent / root)
    module = Cifar10MIL(
        ["truck"], root, str(torchvision_download), "", Loading(), bag_length=10, positive_ratio=0.2, val_fraction=0.2
    )
    module.setup()
    assert module.bags.instances.shape == (10 * len(module.bags), 3, 32, 32)
    assert [len(part) for part in module.splits[1:]] == [24, 6, 20]
    stored = pickle.loads((torchvision_download / "cifar-10-batches-py" / "test_batch").read_bytes())["data"]
    tested = module.bags.batch(module.splits.test)
    rows = {row.tobytes(): number for number, row in enumerate(stored)}
    numbers = torch.tensor([rows[row.tobytes()] for row in tested.instances.flatten(1).numpy()])
    assert torch.equal(tested.instance_labels, (numbers % 10 == 9).long())


def test_a_damaged_download_is_refused(torchvision_download):
    (torchvision_download / "cifar-10-batches-py" / "test_batch").write_bytes(b"damaged")
    with pytest.raises(UserError, match="incomplete or damaged"):
        Cifar10MIL(["truck"], str(torchvision_download), "", "", Loading()).setup()


@pytest.mark.slow
def test_cifar_from_archives_of_class_folders(shared_data, tmp_path):
    root = str(shared_data("cifar10-jpg"))
    module = Cifar10MIL(["truck"], root, "", str(tmp_path), Loading(), positive_ratio=0.05)
    module.setup()
    bags, splits = module.bags, module.splits
    kept = torch.cat([splits.train, splits.val])
    assert [len(kept), int(bags.labels[kept].sum())] == [459, 229]
    assert [len(splits.test), int(bags.labels[splits.test].sum())] == [91, 45]
    assert torch.equal(
        torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.bag_of_instance, bags.instance_labels.long()),
        5 * bags.labels,
    )
    means = bags.instances.float().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.49, 0.48, 0.45], abs=0.01)
