"""Drawn tissue at two resolutions: what is drawn, how it is divided, what is refused."""

import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.masks.synthetic_glands import draw_tissue
from kd_mil.data.pairs.synthetic_glands_paired import SyntheticGlandsPaired


def test_every_second_image_is_positive_and_each_is_the_one_of_its_number():
    source = SyntheticGlandsPaired(image_size=32, images=20, seed=3).read()
    assert source.labels.tolist() == [0, 1] * 10
    assert source.class_names == ("normal", "tumour")
    assert len(set(source.ids)) == 20
    for number in (0, 7):
        image, mask = draw_tissue(32, number % 2 == 1, 3, number)
        assert np.array_equal(np.asarray(source.open(number)), image.transpose(1, 2, 0))
        assert bool(mask.any()) == bool(source.labels[number])


def test_the_student_sees_a_smaller_copy_of_what_the_teacher_sees():
    data = SyntheticGlandsPaired(image_size=64, images=40, student_downsample=4)
    data.setup()
    batch = data.view(data.positions["val"], ("teacher", "student"))
    assert {tuple(image.shape) for image in batch.teacher} == {(3, 64, 64)}
    assert {tuple(image.shape) for image in batch.student} == {(3, 16, 16)}
    assert sum(data.counts().values()) == 40
    assert set(batch.labels.tolist()) == {0, 1}


def test_seed_draws_other_images():
    first, second = (SyntheticGlandsPaired(images=20, seed=seed).read().open(0) for seed in (0, 1))
    assert not torch.equal(torch.tensor(np.asarray(first)), torch.tensor(np.asarray(second)))


@pytest.mark.parametrize("settings", [{"image_size": 31}, {"images": 19}])
def test_too_small_sets_are_refused(settings):
    [(name, value)] = settings.items()
    with pytest.raises(UserError, match=f"data.{name}={value}: must be at least"):
        SyntheticGlandsPaired(**settings)
