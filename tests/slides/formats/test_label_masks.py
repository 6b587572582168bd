"""Which pixels of a mask are positive: labels, numbers of objects, grey rims, floats, pyramids, hostile files."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw, ImageFilter

from kd_mil.core.errors import UserError
from kd_mil.slides.formats import label_masks
from kd_mil.slides.formats.label_masks import positive_pixels, read_label_image, read_mask


def objects(count: int) -> np.ndarray:
    """Squares of 4 pixels numbered 1 to `count`, with gaps of 4."""
    side = int(np.ceil(np.sqrt(count)))
    labels = np.zeros((side * 8, side * 8), dtype=np.uint16)
    for number in range(count):
        row, column = divmod(number, side)
        labels[row * 8 : row * 8 + 4, column * 8 : column * 8 + 4] = number + 1
    return labels


def disc(radius: int = 40) -> Image.Image:
    image = Image.new("L", (128, 128))
    ImageDraw.Draw(image).ellipse([64 - radius, 64 - radius, 64 + radius, 64 + radius], fill=255)
    return image


@pytest.mark.parametrize("count", [1, 2, 127, 128, 200, 250, 255, 256, 300, 1000])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_object_counts_however_many_there_are(tmp_path, count, suffix):
    labels = objects(count)
    image = Image.fromarray(labels if count > 255 else labels.astype(np.uint8))
    image.save(tmp_path / f"objects{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"objects{suffix}").positive, labels > 0)


@pytest.mark.parametrize("blur", [0, 1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_grey_rims_are_not_positive(tmp_path, blur, suffix):
    disc().filter(ImageFilter.GaussianBlur(blur)).save(tmp_path / f"mask{suffix}")
    found, sharp = read_mask(tmp_path / f"mask{suffix}").positive, np.asarray(disc()) > 0
    assert (found != sharp).sum() <= (0 if blur == 0 and suffix != ".jpg" else 60)
    assert found.sum() == pytest.approx(sharp.sum(), rel=0.01)


def test_a_mask_that_could_be_either_is_refused_and_named(tmp_path):
    labels = objects(200).astype(np.uint8)
    labels[-4:, -60:] = 255
    Image.fromarray(labels).save(tmp_path / "odd.png")
    with pytest.raises(UserError, match=r"odd\.png' holds values up to 255, .* set data\.mask_values=\[\.\.\.\]"):
        read_mask(tmp_path / "odd.png", setting="data.mask_values")
    assert (read_mask(tmp_path / "odd.png", [255]).positive == (labels == 255)).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_any_type_and_byte_order(tmp_path, kind, order):
    labels = objects(300 if kind != "u1" else 100)
    tifffile.imwrite(tmp_path / "mask.tif", labels.astype(kind), byteorder=order)
    found = read_mask(tmp_path / "mask.tif")
    np.testing.assert_array_equal(found.positive, labels > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif", [3, 7]).positive, np.isin(labels, [3, 7]))
    assert found.downsample == 1


def test_shares_count_from_one_half():
    assert positive_pixels(np.array([[0, 0.3, 0.6, 1.0]], np.float32)).tolist() == [[False, False, True, True]]
    assert positive_pixels(np.array([[0.0, 1.0, 2.0]])).tolist() == [[False, True, True]]


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (1.5, "fractions from 0 to 1.5"), (-0.5, "fractions")])
def test_floats_that_are_no_labels(tmp_path, value, message):
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, value], [0, 0]], np.float32))
    with pytest.raises(UserError, match=message):
        read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("subifds", [0, 2])
def test_of_a_pyramid_the_finest_level_that_is_not_too_large(tmp_path, monkeypatch, subifds):
    labels = np.zeros((512, 1024), np.uint8)
    labels[:256, 512:] = 1
    with tifffile.TiffWriter(tmp_path / "mask.tif", bigtiff=True) as writer:
        options = {"tile": (128, 128), "compression": "lzw", "metadata": None}
        writer.write(labels, subifds=subifds, **options)
        for step in (2, 4):
            writer.write(labels[::step, ::step].copy(), subfiletype=1, **options)
        writer.write(np.full((100, 90), 7, np.uint8), metadata=None)  # a label of the glass, of another shape
    assert read_mask(tmp_path / "mask.tif").positive.shape == (512, 1024)
    monkeypatch.setattr(label_masks, "MAX_PIXELS", 512 * 256)
    mask = read_mask(tmp_path / "mask.tif")
    assert (mask.positive.shape, mask.downsample) == ((256, 512), 2)
    np.testing.assert_array_equal(mask.positive, labels[::2, ::2] > 0)
    monkeypatch.setattr(label_masks, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="1024 x 512 pixels has no level"):
        read_mask(tmp_path / "mask.tif")


def test_a_declared_size_far_beyond_the_file_is_refused_before_allocation(tmp_path):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16), np.uint8), metadata=None)
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        places = {name: file.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength")}
    content = bytearray(buffer.getvalue())
    for place in places.values():
        content[place : place + 4] = (1_000_000).to_bytes(4, "little")
    (tmp_path / "bomb.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"bomb\.tif"):
        read_mask(tmp_path / "bomb.tif")


def test_bilevel_masks(tmp_path):
    values = np.eye(9, dtype=bool)
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "mask.tif", values ^ (photometric == "miniswhite"), photometric=photometric)
        assert (read_mask(tmp_path / "mask.tif").positive == values).all()
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png").positive == values).all()


def test_label_values_survive_whatever_their_type(tmp_path):
    values = np.arange(12).reshape(3, 4)
    Image.fromarray((values * 5000).astype(np.uint16)).save(tmp_path / "deep.png")
    assert (read_label_image(tmp_path / "deep.png") == values * 5000).all()
    image = Image.new("P", (4, 3))
    image.putpalette(list(range(36)))
    image.putdata(values.ravel().tolist())
    image.save(tmp_path / "palette.png")
    assert (read_label_image(tmp_path / "palette.png") == values).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_image_is_no_mask_but_grey_in_three_channels_is(tmp_path, suffix):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / f"mask{suffix}")
    with pytest.raises(UserError, match="3 channels"):
        read_mask(tmp_path / f"mask{suffix}")
    disc().convert("RGB").save(tmp_path / f"grey{suffix}")
    assert (read_mask(tmp_path / f"grey{suffix}").positive == (np.asarray(disc()) > 0)).all()


@pytest.mark.parametrize("name", ["mask.tif", "mask.png"])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"\x89PNG\r\n\x1a\n", b"hello" * 50])
def test_damaged_masks_are_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as failure:
        read_mask(tmp_path / name)
    assert "\n" not in str(failure.value)
