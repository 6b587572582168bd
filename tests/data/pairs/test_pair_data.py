"""Pairs of resolutions: one reduction from the original, splits by patient, no label where none belongs."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.batches import same_size_groups
from kd_mil.data.pairs.listing import ImageReader
from kd_mil.data.pairs.pair_data import ImageSampler, PairedImages
from kd_mil.data.pairs.stack import ImageSource, PixelReader, channel_statistics, pixels

SIZES = [(40, 24), (24, 40), (33, 21)]


def picture(at):
    generator = np.random.default_rng(at)
    width, height = SIZES[at % 3]
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def source(count=48, classes=2, cases_each=2, **changes):
    labels = torch.arange(count) // cases_each % classes
    plain = ImageSource(
        ids=[f"image{at}" for at in range(count)],
        labels=labels,
        class_names=tuple(f"class{c}" for c in range(classes)),
        open=picture,
        cases=[f"patient{at // cases_each}" for at in range(count)],
    )
    return plain._replace(**changes)


class Given(PairedImages):
    """Serves a given source."""

    def __init__(self, given, **settings):
        super().__init__(**{"student_downsample": 4} | settings)
        self.given = given

    def read(self):
        return self.given


def ready(given=None, **settings):
    data = Given(source() if given is None else given, **settings)
    data.setup()
    return data


def attached(data, view="pairs", rank=0, world_size=1, resolutions=("teacher", "student"), epoch=0):
    module = SimpleNamespace(train_view=view, seed=0, resolutions=resolutions)
    data.trainer = SimpleNamespace(
        lightning_module=module, global_rank=rank, world_size=world_size, current_epoch=epoch
    )
    return data


def test_both_members_come_from_the_original_by_one_lanczos_step():
    data = ready(teacher_downsample=2, student_downsample=8)
    for at in range(3):
        original = picture(at)
        for resolution, factor in (("teacher", 2), ("student", 8)):
            size = tuple(round(side / factor) for side in original.size)
            expected = pixels(original.resize(size, Image.Resampling.LANCZOS))
            assert torch.equal(data.images[resolution][at], expected)
            assert data.images[resolution].sizes[at] == expected.shape[1:]
    twice = picture(0).resize((20, 12), Image.Resampling.LANCZOS).resize((5, 3), Image.Resampling.LANCZOS)
    assert not torch.equal(data.images["student"][0], pixels(twice)), "the pictures would hide a mistake"


def test_images_beyond_the_memory_are_made_when_needed():
    whole, tight = ready(), ready(resident_gib=2000 / 2**30)
    assert len(tight.images["student"].kept) < 48
    for resolution in ("teacher", "student"):
        for at in range(48):
            assert torch.equal(tight.images[resolution][at], whole.images[resolution][at])


def test_cases_stay_whole_in_every_part():
    data = ready(auxiliary_fraction=0.4)
    part_of = {at: part for part, positions in data.positions.items() for at in positions.tolist()}
    assert len(part_of) == 48
    for at in range(0, 48, 2):
        assert part_of[at] == part_of[at + 1]
    assert set(part_of.values()) == {"train", "val", "test", "auxiliary"}
    assert sum(data.counts().values()) == 48


def test_every_case_is_tested_in_one_fold():
    tested = [ready(fold=fold, num_folds=4).positions["test"].tolist() for fold in range(4)]
    assert sorted(at for fold in tested for at in fold) == list(range(48))


def test_pairs_carry_no_label_and_labelled_views_no_other_resolution():
    data = attached(ready(distil_on="both", auxiliary_fraction=0.4))
    seen = list(data.train_dataloader())
    assert all((batch.labels == -1).all() for batch in seen)
    indices = torch.cat([batch.indices for batch in seen])
    expected = torch.cat([data.positions["train"], data.positions["auxiliary"]])
    assert sorted(indices.tolist()) == sorted(expected.tolist())
    for view, other in (("teacher", "student"), ("student", "teacher")):
        for batch in attached(data, view).train_dataloader():
            assert not getattr(batch, other)
            assert torch.equal(batch.labels, data.source.labels[batch.indices])
            assert torch.isin(batch.indices, data.positions["train"]).all()


@pytest.mark.parametrize("distil_on", ["train", "auxiliary"])
def test_what_the_student_is_distilled_on(distil_on):
    data = ready(distil_on=distil_on, auxiliary_fraction=0.4)
    assert torch.equal(data.distilled_positions(), data.positions[distil_on])
    assert data.model_inputs["auxiliary"] == (distil_on == "auxiliary")


def test_evaluation_shows_every_image_once_over_the_ranks():
    data = ready()
    seen = []
    for rank in range(3):
        loader = attached(data, rank=rank, world_size=3).test_dataloader()
        seen += [at for batch in loader for at in batch.indices.tolist()]
    assert sorted(seen) == data.positions["test"].tolist()


@pytest.mark.parametrize("count", [7, 12, 13])
def test_sampler_shows_everything_once(count):
    positions = torch.arange(100, 100 + count)
    sampler = ImageSampler(positions, 4, False, seed=0)
    steps = list(sampler)
    assert len(steps) == len(sampler)
    assert sorted(torch.cat(steps).tolist()) == positions.tolist()


def test_ranks_decode_their_share_of_each_step():
    """Five images over three ranks; the tables are those of the step."""
    data = ready(images_per_step=5)
    whole, *dealt = (
        list(attached(data, rank=rank, world_size=ranks).train_dataloader())
        for rank, ranks in ((0, 1), (0, 3), (1, 3), (2, 3))
    )
    for step, *shares in zip(whole, *dealt, strict=True):
        assert all(torch.equal(share.indices, step.indices) for share in shares)
        together = [image for share in shares for image in share.student[: share.share.count]]
        assert all(torch.equal(*pair) for pair in zip(together, step.student, strict=True))


def test_sampler_flushes_the_last_group_unless_told_otherwise():
    def sizes(drop_last):
        return [len(group) for group in ImageSampler(torch.arange(10), 4, drop_last, seed=0)]

    assert sizes(False) == [4, 4, 2]
    assert sizes(True) == [4, 4]


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = ImageSampler(torch.arange(20), 20, False, seed=seed)
        sampler.set_epoch(epoch)
        return next(iter(sampler)).tolist()

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(*one)) for one in ((0, 0), (0, 1), (1, 0))}) == 3


def test_split_file_reads_back(tmp_path):
    data = ready(auxiliary_fraction=0.4)
    data.write_split_file(tmp_path / "splits.csv")
    again = ready(split_file=str(tmp_path / "splits.csv"), seed=9)
    assert {part: positions.tolist() for part, positions in again.positions.items()} == {
        part: positions.tolist() for part, positions in data.positions.items()
    }
    assert again.fingerprint() == data.fingerprint()
    assert list(pd.read_csv(tmp_path / "splits.csv")) == ["image_id", "case_id", "label", "split", "content"]


def test_fingerprint_and_held_out_follow_what_they_name():
    data = ready()
    assert ready().fingerprint() == data.fingerprint()
    assert ready(student_downsample=2).fingerprint() != data.fingerprint()
    assert ready(student_downsample=2).held_out() == data.held_out()
    assert ready(auxiliary_fraction=0.4).held_out() == data.held_out()
    assert ready(seed=1).held_out() != data.held_out()


def test_statistics_are_those_of_all_training_pixels():
    data = ready()
    values = torch.cat([data.images["student"][at].flatten(1) for at in data.positions["train"].tolist()], 1) / 255
    mean, std = data.channel_statistics("student")
    assert torch.allclose(mean, values.mean(1), atol=1e-6)
    assert torch.allclose(std, values.std(1, correction=0), atol=1e-6)
    assert data.channel_statistics("student")[0] is mean, "computed once"
    assert channel_statistics([torch.full((3, 2, 2), 7, dtype=torch.uint8)])[1].tolist() == [1, 1, 1]


def test_groups_hold_equal_sizes_within_the_budget():
    large = [torch.empty(3, *size) for size in ((8, 8), (8, 4), (8, 8), (8, 8))]
    small = [torch.empty(3, *size) for size in ((2, 2), (2, 1), (2, 2), (2, 3))]
    assert same_size_groups(large, small) == [[0, 2], [1], [3]]
    assert same_size_groups(large, []) == [[0, 2, 3], [1]]
    assert same_size_groups(large, small, max_pixels=70) == [[0], [2], [1], [3]]


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (source(classes=1), {}, "one class"),
        (source(labels=torch.full((48,), -1), class_names=()), {}, "no labels: telling apart takes two classes"),
        (source(parts=["test"] * 48), {}, "the train part has no images"),
        (source(class_names=("class0", "class1", "class2")), {}, "no training image has class 'class2'"),
        (source(), {"distil_on": "auxiliary"}, "no auxiliary images"),
        (source(labels=torch.full((48,), -1), parts=["train", "val", "test"] * 16, cases=None), {}, "has no label"),
        (source(parts=["train", "test"] * 24), {}, "patient0"),
        (source(parts=["train", "val"] * 24, cases=None), {}, "the test part has no images"),
        (source(), {"student_downsample": 0.5}, "student_downsample=0.5"),
        (source(), {"images_per_step": 0}, "images_per_step=0"),
        (source(), {"auxiliary_fraction": 1.0}, "auxiliary_fraction=1.0"),
        (source(), {"fold": 9}, "fold=9"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict | str) else "",
)
def test_mistakes(given, settings, message):
    with pytest.raises(UserError, match=message):
        ready(given, **settings)


def test_a_few_images_and_steps_to_try_things_out():
    few = attached(ready(limit_images=5, limit_batches=2, images_per_step=2, auxiliary_fraction=0.4, distil_on="both"))
    whole = ready(auxiliary_fraction=0.4)
    assert few.source.labels[few.positions["train"]].bincount().tolist() == [3, 2]
    assert len(few.positions["auxiliary"]) == 5
    assert few.held_out() == whole.held_out()
    assert [len(batch.indices) for batch in few.train_dataloader()] == [2, 2]
    with pytest.raises(UserError, match="limit_batches=0: must be at least 1"):
        ready(limit_batches=0)


def test_loaders_travel_to_workers_that_start_without_a_fork(tmp_path):
    """What a worker process is sent must pickle, whatever opens the originals."""
    picture(0).save(tmp_path / "one.png")
    stored = [np.asarray(picture(at)).transpose(2, 0, 1) for at in range(48)]
    for opens in (ImageReader([tmp_path / "one.png"] * 48), PixelReader(stored)):
        data = attached(ready(source(open=opens), resident_gib=0), view="teacher")
        loaders = [*data.train_dataloader().loaders.values(), data.val_dataloader()]
        for loader in loaders:
            positions = next(iter(loader.sampler))
            again = pickle.loads(pickle.dumps(loader.dataset))[positions]
            for name in ("teacher", "student"):
                images, expected = getattr(again, name), getattr(loader.dataset[positions], name)
                assert len(images) == len(expected)
                assert all(torch.equal(*pair) for pair in zip(images, expected, strict=True))
            assert again.teacher or again.student


def test_limits_of_unlabelled_images_are_nested():
    """ADv1 within ADv2: what is gained by more of them is not another draw's luck."""
    settings = {"distil_on": "auxiliary", "auxiliary_fraction": 0.5}
    every, more, fewer = (ready(**settings, auxiliary_limit=limit) for limit in (None, 10, 4))
    ours = [set(data.positions["auxiliary"].tolist()) for data in (fewer, more, every)]
    assert ours[0] < ours[1] < ours[2]
    assert [len(part) for part in ours[:2]] == [4, 10]
    assert torch.equal(fewer.positions["train"], every.positions["train"])
    with pytest.raises(UserError, match=r"data\.auxiliary_limit=99, but there are"):
        ready(**settings, auxiliary_limit=99)
