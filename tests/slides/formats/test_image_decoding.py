"""One meaning of an image file, whoever reads it: slides, patches, masks, pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.masks.image_files import ImageEntry, ImageFileData
from kd_mil.data.pairs.paired_images import ImageFolders
from kd_mil.data.patches.image_files import ImageFiles, decode_image
from kd_mil.slides.formats import image_decoding
from kd_mil.slides.formats.image_decoding import decode_rgb, on_white
from kd_mil.slides.formats.reader import open_slide

SIZE = (12, 8)
"""Width and height."""


class OneImage(ImageFileData):
    """A set with masks that holds the same image for each part."""

    def __init__(self, path: Path) -> None:
        from kd_mil.data.datamodules import Loading

        super().__init__(Loading(), image_size=SIZE[::-1])
        self.path = path

    def entries(self) -> list[ImageEntry]:
        parts = [(part, label) for part in ("train", "val", "test") for label in (0, 1)]
        return [ImageEntry(f"{part}{label}", self.path, label, split=part) for part, label in parts]


def as_slide(path: Path) -> np.ndarray:
    return open_slide(path, mpp=0.5).read(0, 0, SIZE, 0.5)


def as_patch(path: Path) -> np.ndarray:
    return decode_image(str(path), path.name).transpose(1, 2, 0)


def as_lazy_patch(path: Path) -> np.ndarray:
    return ImageFiles.open([path]).read()[0].permute(1, 2, 0).numpy()


def as_image_with_mask(path: Path) -> np.ndarray:
    data = OneImage(path)
    return data.load().bags.instances[0].permute(1, 2, 0).numpy()


def as_pair(path: Path) -> np.ndarray:
    table = path.with_suffix(".csv")
    table.write_text(f"image_path,label\n{path.name},a\n")
    return np.asarray(ImageFolders(str(table), "").read().open(0))


READERS = [as_slide, as_patch, as_lazy_patch, as_image_with_mask, as_pair]


def transparent(path: Path) -> None:
    """Left half transparent black, right half opaque red."""
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (SIZE[0] // 2, 0, *SIZE))
    image.save(path)


def transparent_palette(path: Path) -> None:
    """The same as a palette with a transparent entry."""
    image = Image.new("P", SIZE, 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (SIZE[0] // 2, 0, *SIZE))
    image.save(path, transparency=0)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("draw", [transparent, transparent_palette])
def test_transparent_is_white_for_every_reader(tmp_path, read, draw):
    draw(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png")
    assert pixels.shape == (8, 12, 3)
    assert (pixels[:, :6] == 255).all()
    assert (pixels[:, 6:] == (255, 0, 0)).all()


@pytest.mark.parametrize("read", READERS)
def test_sixteen_bits_are_refused_by_every_reader(tmp_path, read):
    """Cut to 8 bits, a ramp over all 65536 values would be nearly white."""
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(
        UserError, match=r"deep\.png.*: pixels of type I;16.*: convert the image to 8-bit RGB"
    ) as caught:
        read(tmp_path / "deep.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", READERS)
def test_grey_is_three_equal_channels_for_every_reader(tmp_path, read):
    Image.new("L", SIZE, 7).save(tmp_path / "a.bmp")
    assert (read(tmp_path / "a.bmp") == 7).all()


@pytest.mark.parametrize("read", READERS)
def test_a_damaged_file_is_one_line_from_every_reader(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:150])
    with pytest.raises(UserError, match=r"half\.png.*: not a readable image") as caught:
        read(tmp_path / "half.png")
    assert "\n" not in str(caught.value)


def test_half_transparent_red_on_white_is_pink():
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    image.putpixel((0, 0), (0, 0, 0, 0))
    pixels = np.asarray(on_white(image))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [255, 127, 127]


def test_a_file_object_goes_by_the_name_it_is_given(tmp_path):
    (tmp_path / "member").write_bytes(b"no image")
    with (
        (tmp_path / "member").open("rb") as file,
        pytest.raises(UserError, match=r"^archive\.tar:a\.png: not a readable"),
    ):
        decode_rgb(file, "archive.tar:a.png")


def test_an_image_too_large_to_be_held_is_one_line(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    with monkeypatch.context() as limits:
        limits.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(UserError, match=r"large\.png: too large for a plain image"):
            decode_rgb(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other packages leave it
    monkeypatch.setattr(image_decoding, "MOST_PIXELS", 1600)
    assert decode_rgb(tmp_path / "large.png").size == (40, 40)
    monkeypatch.setattr(image_decoding, "MOST_PIXELS", 1599)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for read in (decode_rgb, lambda path: open_slide(path, mpp=1.0)):
        with pytest.raises(UserError, match=r"large\.png: too large for a plain image \(40 x 40 pixels\)"):
            read(tmp_path / "large.png")
