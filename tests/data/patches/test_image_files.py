import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.bags import Bags
from kd_mil.data.patches.image_files import ImageFiles, decode_image


@pytest.fixture
def paths(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.iterdir())


def test_images_come_in_the_order_asked_for(paths):
    images = ImageFiles.open(paths)
    oracle = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in paths])
    assert images.shape == (5, 3, 4, 6)
    assert images.nbytes == oracle.nbytes
    assert torch.equal(images[torch.tensor([3, 0, 3])], torch.from_numpy(oracle[[3, 0, 3]]))
    assert torch.equal(images.read(), torch.from_numpy(oracle))


def test_selected_images_stay_in_their_files(paths):
    images = ImageFiles.open(paths)
    chosen = images.select(torch.tensor([4, 2]))
    assert chosen.shape == (2, 3, 4, 6)
    assert torch.equal(chosen[torch.tensor([1])], images[torch.tensor([2])])


def test_bags_read_lazily_equal_bags_in_memory(paths):
    images = ImageFiles.open(paths)
    tables = {"sizes": torch.tensor([2, 3]), "labels": torch.tensor([0, 1]), "bag_ids": ["a", "b"]}
    lazy, resident = Bags(images, **tables), Bags(images.read(), **tables)
    assert lazy.instance_shape == (3, 4, 6)
    assert lazy.nbytes == resident.nbytes
    for bags in (torch.tensor([1]), torch.tensor([1, 0])):
        assert torch.equal(lazy.batch(bags).instances, resident.batch(bags).instances)


def test_images_travel_to_workers(paths):
    images = pickle.loads(pickle.dumps(ImageFiles.open(paths)))
    assert torch.equal(images[torch.tensor([1])], ImageFiles.open(paths)[torch.tensor([1])])


def test_images_are_resized_to_a_square(paths):
    images = ImageFiles.open(paths, image_size=8)
    assert images[torch.tensor([0])].shape == (1, 3, 8, 8)


def test_height_comes_before_width(tmp_path):
    Image.fromarray(np.repeat(np.uint8([[[10], [200]]]), 3, axis=2)).save(tmp_path / "wide.png")
    resized = decode_image(str(tmp_path / "wide.png"), "", size=(3, 8))
    assert resized.shape == (3, 3, 8)
    assert (resized[:, :, 0] == 10).all()
    assert (resized[:, :, 7] == 200).all()


def test_a_missing_image_is_named(paths):
    images = ImageFiles.open(paths)
    paths[2].unlink()
    with pytest.raises(UserError, match=r"2.png: no such image"):
        images[torch.tensor([2])]
