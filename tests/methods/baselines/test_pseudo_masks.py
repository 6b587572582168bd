"""OEEM- and OAA-style baselines: who learns when, from which masks, and exactly again after an interruption."""

import math

import lightning as L
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.batches import ImageBatch
from kd_mil.methods.base.pixel_losses import cross_entropy_of, easy_weights
from kd_mil.methods.baselines.oaa import OAA
from kd_mil.methods.baselines.oeem import OEEM
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.preprocess import Preprocess
from kd_mil.models.segmenters.cam import ClassActivation
from tests.support.methods import checkpointing
from tests.support.tiny import fit
from tests.support.tiny_images import image_parts, tiny_glands


def made(kind, **settings):
    torch.manual_seed(0)
    return kind(**image_parts(**{"teacher_epochs": 2} | settings))


def state_of(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("kind", [OEEM, OAA])
def test_a_resumed_run_is_the_uninterrupted_one(kind, tmp_path):
    """From the end of each epoch; the third is the first of stage two."""
    settings = {"augment": True} if kind is OAA else {}
    whole = made(kind, **settings)
    data = tiny_glands()
    fit(whole, data, epochs=4, **checkpointing(tmp_path))
    assert "train" not in data._masks, "no mask of a training image is read"
    for epoch in range(3):
        resumed = made(kind, **settings)
        fit(resumed, tiny_glands(), epochs=4, start=tmp_path / f"epoch{epoch}.ckpt")
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (epoch, name)
        if kind is OAA:
            assert torch.equal(whole.accumulated, resumed.accumulated)


@pytest.mark.parametrize("kind", [OEEM, OAA])
def test_the_classifier_learns_first_and_then_the_segmenter_alone(kind):
    method, states, watch = made(kind), [], L.Callback()
    watch.on_train_epoch_end = lambda trainer, module: states.append(
        (state_of(module.teacher), state_of(module.student))
    )
    before = (state_of(method.teacher), state_of(method.student))
    trainer = fit(method, tiny_glands(), epochs=4, callbacks=[watch])
    for epoch, (start, end) in enumerate(zip([before, *states], states, strict=False)):
        moved = [not all(torch.equal(one[key], two[key]) for key in one) for one, two in zip(start, end, strict=True)]
        assert moved[1] == (epoch >= 2)
        assert moved[0] == (epoch < 2) or epoch == 2, "at the third the best epoch is handed on"
    assert math.isfinite(trainer.callback_metrics["val/student/image_loss"])
    assert method.default_monitor == "val/student/image_loss"


def test_easy_pixels_weigh_more_in_oeem_and_alike_in_oaa():
    probs, masks = torch.tensor([[[0.9, 0.2, 0.6, 0.3]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    output = SegmentationOutput(probs[:, None], probs)
    losses = cross_entropy_of(probs, masks).flatten(1)
    plain = 2 * losses.mean()
    easy = 2 * (losses * easy_weights(losses, masks.flatten(1))).mean()
    assert float(made(OAA).mask_loss(output, masks)) == pytest.approx(float(plain))
    assert float(made(OEEM).mask_loss(output, masks)) == pytest.approx(float(easy))
    assert easy < plain


class Says(torch.nn.Module):
    """A classifier that says the same of all images."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output


def test_oaa_keeps_the_largest_map_of_each_image():
    """Two epochs whose maps are bright in one place each; an image that is not trained on keeps none."""
    method, images, places = made(OAA), torch.zeros(3, 3, 8, 8, dtype=torch.uint8), [(0, 0), (1, 1)]
    for row, column in places:
        activation = torch.zeros(2, 8, 8)
        activation[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 5.0
        method.teacher = Says(ClassActivation(torch.zeros(2), activation))
        method.accumulate(images, torch.tensor([0, 2]))
    assert method.accumulated[0].tolist() == method.accumulated[2].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert not method.accumulated[1].any()


def test_masks_turn_with_their_images():
    """Each image shows its own map in its first channel; after any turn it still must."""
    method = made(OAA, augment=True)
    method.accumulated = (torch.rand(8, 8, 8) < 0.5).float()
    large = torch.nn.functional.interpolate(method.accumulated[:, None], (32, 32), mode="bilinear")
    images = torch.cat([large, large * 0, large * 0], 1)
    batch = ImageBatch(images, torch.ones(8), torch.arange(8))
    turned, maps = method.pseudo_masks(batch, images)
    assert torch.equal(turned[:, 0], maps)
    assert not torch.equal(maps, large[:, 0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: made(OEEM, num_classes=3), "method=oeem_style .* 3 classes"),
        (lambda: made(OEEM, mask_from=1.0), "mask_from"),
        (lambda: made(OAA, teacher_epochs=0), "teacher_epochs=0"),
        (lambda: made(OAA, preprocess=Preprocess(augment=True)), "method.augment"),
        (lambda: made(OAA, augment=True, instance_shape=(3, 32, 64)), "square"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
