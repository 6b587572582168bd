"""The reference lines of segmentation: CAM from labels, U-Net from masks."""

import math
from functools import partial

import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data import bags
from kd_mil.data.batches import UNKNOWN, MaskedBatch
from kd_mil.methods.base.pixel_losses import soft_dice
from kd_mil.methods.baselines.cam import CAM
from kd_mil.methods.baselines.unet_supervised import UNetSupervised
from kd_mil.models.outputs import SegmentationOutput
from kd_mil.models.preprocess import Preprocess
from kd_mil.models.segmenters.cam import CamClassifier
from kd_mil.models.segmenters.unet import UNet
from tests.support.tiny import fit
from tests.support.tiny_images import image_parts, tiny_glands


def cam():
    torch.manual_seed(0)
    return CAM(**image_parts(segmenter=partial(CamClassifier, widths=(4, 6, 8))))


def test_cam_takes_the_trunk_of_any_segmenter():
    method = CAM(**image_parts())
    trainer = fit(method, tiny_glands(), epochs=1)
    assert trainer.callback_metrics["loss/model"].isfinite()
    assert not any("side_heads" in name for name, _ in method.named_parameters())


def unet(**settings):
    torch.manual_seed(0)
    return UNetSupervised(**image_parts(segmenter=partial(UNet, name="resnet10t", stages=(0, 1, 2, 3)), **settings))


def test_cam_trains_without_masks():
    data = tiny_glands()
    method = cam()
    trainer = fit(method, data, epochs=3)
    assert "train" not in data._masks
    assert trainer.callback_metrics["loss/model"].isfinite()
    assert 0 <= trainer.callback_metrics["val/model/pixel_f1"] <= 1
    assert method.default_monitor == "val/model/image_loss"


def test_cam_is_judged_as_the_classifier_it_is():
    """By its own cross-entropy: the mean of a sharp map says nothing about how sure the classifier is."""
    method, data = cam(), tiny_glands()
    trainer = fit(method, data, epochs=1)
    images, labels = data.bags.instances[data.splits.val], data.bags.labels[data.splits.val]
    with torch.no_grad():
        logits = method.eval().classifier(method.preprocess(images)).logits
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert trainer.callback_metrics["val/model/image_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def vgg_on_masks(**settings):
    return UNetSupervised(**image_parts(**settings))


@pytest.mark.parametrize("network", [unet, vgg_on_masks])
@pytest.mark.parametrize("inverted", [False, True])
def test_networks_learn_what_the_masks_say(inverted, network):
    """Taught that tumour is background, it says so."""
    method, data = network(optimizer=partial(torch.optim.Adam, lr=1e-2)), tiny_glands()
    data.setup()
    if inverted:
        data._truth = 1 - data._truth
    fit(method, data, epochs=20)
    positives = data.splits.train[1::2]
    with torch.no_grad():
        maps = method.eval().predict_maps(data.bags.instances[positives])["model"]
    tumour = data.read_masks(positives) == (0 if inverted else 1)
    assert (maps[tumour].mean() > maps[~tumour].mean() + 0.1) != inverted
    assert (maps[tumour].mean() < maps[~tumour].mean() - 0.1) == inverted


def test_unknown_pixels_teach_nothing():
    method = unet().eval()
    images = torch.rand(2, 3, 32, 32)
    masks = (torch.rand(2, 32, 32) < 0.5).float()
    masks[:, :9] = UNKNOWN
    logits = method.segmenter.logits(images).requires_grad_()
    method.segmenter.logits = lambda _: logits
    (gradient,) = torch.autograd.grad(method.loss(images, masks), logits)
    assert not gradient[:, :9].any()
    assert gradient[:, 9:].all()


def test_masks_turn_with_their_images(monkeypatch):
    """Each image shows its own mask in its first channel; after any turn it still must."""
    method = unet(augment=True).train()
    masks = (torch.rand(8, 32, 32) < 0.5).byte()
    images = torch.stack([masks * 255, masks * 0, masks * 0], 1)
    seen = []
    monkeypatch.setattr(method, "loss", lambda x, m, _: seen.append((x, m)) or x.sum())
    monkeypatch.setattr(method, "step_optimizers", lambda *_: None)
    monkeypatch.setattr(method, "optimizer_list", list)
    monkeypatch.setattr(method, "log_loss", lambda *_, **__: None)
    method.training_step(MaskedBatch(images, torch.ones(8), torch.arange(8), masks), 0)
    [(turned, turned_masks)] = seen
    assert torch.equal(turned[:, 0], turned_masks)
    assert not torch.equal(turned_masks, masks.float())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: unet(preprocess=Preprocess(augment=True)), "method.augment"),
        (lambda: unet(augment=True, instance_shape=(3, 32, 64)), "square"),
        (lambda: unet(num_classes=3), "3 classes"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_few_large_images_are_enough_for_pixel_statistics(monkeypatch):
    seen = []
    monkeypatch.setattr(Preprocess, "fit", lambda _, images: seen.append(len(images)))
    monkeypatch.setattr(bags, "SAMPLE_VALUES", 5 * 3 * 32 * 32)
    method = CAM(
        **image_parts(preprocess=Preprocess(standardise=True), segmenter=partial(CamClassifier, widths=(4, 6)))
    )
    fit(method, tiny_glands())
    assert seen == [5]


def test_training_without_any_mask_is_refused(monkeypatch):
    data = tiny_glands()
    monkeypatch.setattr(
        data, "read_masks", lambda positions: torch.full((len(positions), 32, 32), UNKNOWN, dtype=torch.uint8)
    )
    with pytest.raises(UserError, match="no training image has one"):
        fit(unet(), data)


def test_the_loss_of_masks_by_hand():
    """Two of four pixels known, logit 0: cross-entropy log 2; overlap of p = .5 with one positive of two known."""
    method = unet()
    method.segmenter.logits = lambda images: torch.zeros(1, 2, 2)
    masks = torch.tensor([[[1.0, 0.0], [255.0, 255.0]]])
    probs, targets = torch.tensor([[[0.5, 0.5], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    expected = math.log(2) + float(soft_dice(probs, targets).mean())
    assert float(method.loss(torch.zeros(1, 3, 2, 2), masks)) == pytest.approx(expected)


def test_the_loss_of_masks_of_a_network_with_several_maps_by_hand():
    """As above, but the probabilities of the fused map are given: .25 and .5 where they are known."""
    method = vgg_on_masks()
    fused = torch.tensor([[[0.25, 0.5], [0.9, 0.1]]])
    method.segmenter.forward = lambda images: SegmentationOutput(fused[:, None], fused)
    masks = torch.tensor([[[1.0, 0.0], [255.0, 255.0]]])
    probs, targets = torch.tensor([[[0.25, 0.5], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    expected = (math.log(4) + math.log(2)) / 2 + float(soft_dice(probs, targets).mean())
    assert float(method.loss(torch.zeros(1, 3, 2, 2), masks)) == pytest.approx(expected)
