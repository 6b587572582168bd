"""Presets of pathology encoders give what the models' cards give, on small networks of the same architecture."""

import json

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from torch import nn
from torchvision import transforms

from kd_mil.core.errors import UserError
from kd_mil.models.encoders.tile_encoder import TileEncoder
from kd_mil.models.encoders.timm_encoder import TimmEncoder
from tests.support.configs import compose_extract

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
IMAGENET = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BIOPTIMUS = transforms.Normalize((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
HIDDEN = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
NAMES = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
UNI2 = HIDDEN | {"init_values": 1e-5, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8}
VIRCHOW = HIDDEN | {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""}
GIGAPATH = {"init_values": 1e-5, "mlp_ratio": 5.33334, "patch_size": 16}


def whole(output):
    return output


def class_token_and_mean(registers):
    return lambda output: torch.cat([output[:, 0], output[:, 1 + registers :].mean(1)], dim=-1)


CARDS = {
    "uni": ("vit_large_patch16_224", {"init_values": 1e-5}, IMAGENET, whole),
    "uni2_h": ("vit_giant_patch14_224", UNI2, IMAGENET, whole),
    "virchow": ("vit_huge_patch14_224", VIRCHOW, IMAGENET, class_token_and_mean(0)),
    "virchow2": ("vit_huge_patch14_224", VIRCHOW | {"reg_tokens": 4}, IMAGENET, class_token_and_mean(4)),
    "h_optimus_0": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5}, BIOPTIMUS, whole),
    "h_optimus_1": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5}, BIOPTIMUS, whole),
    "gigapath": ("vit_giant_patch14_dinov2", GIGAPATH, IMAGENET, whole),
}
"""Architecture, its arguments, normalisation and pooling, as the cards spell them."""


def published(preset):
    """A small network of the architecture of a preset, as its card makes it, with weights that are not all alike."""
    architecture, arguments, *_ = CARDS[preset]
    torch.manual_seed(1)
    network = timm.create_model(architecture, img_size=224, num_classes=0, **arguments | SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network


@pytest.mark.parametrize("preset", CARDS)
def test_features_are_those_of_the_card(preset, tmp_path):
    network, (*_, normalise, pool) = published(preset), CARDS[preset]
    side = 256 if preset == "gigapath" else 224
    tiles = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    steps = [transforms.Resize(side, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    card = transforms.Compose([*steps, transforms.ToTensor(), normalise])
    with torch.inference_mode():
        expected = pool(network(torch.stack([card(Image.fromarray(tile.numpy())) for tile in tiles])))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = compose_extract(f"encoder={preset}", f"encoder.weights={tmp_path / 'model.safetensors'}").encoder
    plain = OmegaConf.to_container(config)
    plain["model_args"] |= SMALL
    encoder = TileEncoder(instantiate(plain, _convert_="all"), plain, side, torch.device("cpu"))
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-4, atol=1e-4)
    assert encoder.identity["preset"] == preset
    assert encoder.transform["size"] == side
    assert encoder.transform.get("crop") == (224 if preset == "gigapath" else None)
    if preset != "gigapath":
        larger = TileEncoder(instantiate(plain, _convert_="all"), plain, 256, torch.device("cpu"))
        assert larger.transform == encoder.transform


def saved(network, folder, **arguments):
    """A folder as on the hub: the configuration and the weights."""
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    known = {"input_size": [3, 224, 224], "fixed_input_size": True, "interpolation": "bicubic", "num_classes": 0}
    known |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "classifier": "head", "first_conv": "patch_embed.proj"}
    config = {
        "architecture": "vit_huge_patch14_224",
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": known,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_as_on_the_hub_brings_arguments_and_normalisation(tmp_path):
    """Also a network for any size keeps to the size of its card, as under its hub name."""
    network = published("virchow2")
    arguments = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, "dynamic_img_size": True}
    folder = saved(network, tmp_path / "model", **arguments, **SMALL)
    images = torch.rand(2, 3, 256, 256)
    features = []
    for given in ({"name": f"local-dir:{folder}", "pretrained": True}, {"name": "any", "weights": str(folder)}):
        encoder = TimmEncoder((3, 256, 256), model_args=NAMES, pool="mean", **given).eval()
        assert encoder.resize == 224
        features.append(encoder(images))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.2, 0.3]))
    shown = nn.functional.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    expected = network((shown - mean) / std)[:, 5:].mean(1)
    for found in features:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(
        UserError, match=r"another size, first blocks.0.mlp.fc2.weight, \(32, 85\) in the file and \(32, 170"
    ):
        TimmEncoder((3, 256, 256), f"local-dir:{folder}", pretrained=True, pool="mean")
    with pytest.raises(
        UserError, match=r"another architecture, 1 of 35 tensors of the file .* first reg_token: see encod"
    ):
        TimmEncoder((3, 256, 256), f"local-dir:{folder}", pretrained=True, model_args=NAMES | {"reg_tokens": 0})
    with pytest.raises(
        UserError, match=r"another architecture, 14 of 49 tensors of the network .* first blocks.2.norm1"
    ):
        TimmEncoder((3, 256, 256), f"local-dir:{folder}", pretrained=True, model_args=NAMES | {"depth": 3})


def test_grey_images_are_rgb_images_without_colour(tmp_path):
    folder = saved(published("virchow"), tmp_path / "model", img_size=224, init_values=1e-5, mlp_ratio=5.3375, **SMALL)
    given = {"name": f"local-dir:{folder}", "pretrained": True, "pool": "cls", "model_args": NAMES}
    grey = torch.rand(1, 1, 224, 224)
    alike = TimmEncoder((3, 224, 224), **given).eval()(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(TimmEncoder((1, 224, 224), **given).eval()(grey), alike)


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_files_of_torch_save_are_read_with_and_without_their_classifier(wrapped, tmp_path):
    network = timm.create_model("resnet10t").eval()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save(state if wrapped is None else {wrapped: state, "epoch": 3}, tmp_path / "weights.pth")
    encoder = TimmEncoder((3, 32, 32), "resnet10t", weights=str(tmp_path / "weights.pth")).eval()
    images = torch.rand(2, 3, 32, 32)
    network.reset_classifier(0)
    normalised = (images - encoder.mean) / encoder.std
    torch.testing.assert_close(encoder(images), network(normalised))
    assert encoder.normalises
    assert encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
