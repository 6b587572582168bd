"""CIFAR-10 at two resolutions."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.cifar10_paired import Cifar10Paired
from tests.support.tiny_images import write_image


def test_cifar10_pairs(tmp_path):
    for part in ("train", "test"):
        for label in "abc":
            for at in range(12):
                write_image(tmp_path / "cifar10-jpg" / part / label / f"{at}.png", at, (32, 32))
    data = Cifar10Paired(
        None, str(tmp_path), str(tmp_path), max_train_images=30, max_test_images=6, student_downsample=4
    )
    data.setup()
    assert data.counts()["test"] == 6
    assert data.counts()["train"] + data.counts()["val"] == 30
    assert data.source.labels[data.positions["test"]].bincount().tolist() == [2, 2, 2]
    assert data.images["teacher"][0].shape == (3, 32, 32)
    assert data.images["student"][0].shape == (3, 8, 8)
    assert set(data.input_sizes("student")) == {(8, 8)}
    for limit in (31, 39):
        with pytest.raises(UserError, match=rf"data.max_train_images={limit}: must be a multiple of the 3.*at most 36"):
            Cifar10Paired(None, str(tmp_path), str(tmp_path), max_train_images=limit).setup()


def test_a_missing_set_says_what_to_get(tmp_path):
    with pytest.raises(UserError, match="CIFAR-10"):
        Cifar10Paired(None, str(tmp_path), str(tmp_path)).setup()
