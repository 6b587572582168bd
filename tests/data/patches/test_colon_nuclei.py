import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.patches import colon_nuclei
from kd_mil.data.patches.colon_nuclei import ColonNuclei, nearest_to, read_centres, read_nuclei
from kd_mil.data.patches.image_files import decode_image
from kd_mil.data.patches.patch_cutting import nucleus_corners
from kd_mil.data.patches.stain_normalisation import normalise_stain


def load(root, **settings):
    module = ColonNuclei(str(root), "", Loading(), **settings)
    module.setup()
    return module


@pytest.fixture
def images(tmp_path):
    """Thirty images of 20x30 pixels that hold their own row and column; every other one has an epithelial nucleus."""
    row, column = np.mgrid[:20, :30]
    pixels = np.stack([row, column, np.zeros_like(row)], axis=2).astype(np.uint8)
    for number in range(1, 31):
        folder = tmp_path / f"img{number}"
        folder.mkdir()
        suffix = "bmp" if number == 3 else "png"
        Image.fromarray(pixels).save(folder / f"img{number}.{suffix}")
        epithelial = [[11, 8]] if number % 2 else []
        nuclei = {"epithelial": epithelial, "fibroblast": [[1, 1], [30, 20]]}
        nuclei["detection"] = [*epithelial, [1, 1], [30, 19], [21, 9]]
        for name in ("detection", "epithelial", "fibroblast", "inflammatory", "others"):
            detection = np.array(nuclei.get(name, []), dtype=np.uint8).reshape(-1, 2)
            scipy.io.savemat(folder / f"img{number}_{name}.mat", {"detection": detection})
    return tmp_path


def test_patches_are_cut_around_nuclei_and_shifted_inside(images):
    bags = load(images, patch_size=5).bags
    assert bags.bag_ids == [f"img{number}" for number in range(1, 31)]
    assert bags.labels.tolist() == [1, 0] * 15
    first = bags.batch(torch.tensor([0]))
    assert first.coords.tolist() == [[0, 0], [8, 5], [25, 15]]
    assert first.instance_labels.tolist() == [0, 1, 0]
    rows, columns = first.instances[:, 0], first.instances[:, 1]
    assert torch.equal(rows[:, 0, 0], first.coords[:, 1].byte())
    assert torch.equal(columns[:, 0, 0], first.coords[:, 0].byte())
    assert rows[1, 2, 2] == 7
    assert columns[1, 2, 2] == 10
    assert first.instances.is_contiguous()


def test_small_unsigned_coordinates_do_not_wrap(images):
    centres, _ = read_nuclei(images / "img1" / "img1.png")
    assert centres.tolist() == [[0, 0], [10, 7], [29, 19]]
    assert nucleus_corners((20, 30), centres, 5).min() == 0
    scipy.io.savemat(images / "edge.mat", {"detection": np.array([[0, 255]], dtype=np.uint8)})
    assert read_centres(images / "edge.mat").tolist() == [[-1, 254]]


def test_nuclei_are_ordered_by_place_not_by_type(images):
    _, is_positive = read_nuclei(images / "img1" / "img1.png")
    assert is_positive.tolist() == [False, True, False]


def test_the_grid_covers_the_image_without_overlap(images):
    bags = load(images, patch_size=6, patching="grid").bags
    assert bags.sizes.tolist() == [15] * 30
    first = bags.batch(torch.tensor([0]))
    assert first.coords.tolist() == [[x, y] for y in (0, 6, 12) for x in (0, 6, 12, 18, 24)]
    assert first.instance_labels.nonzero().flatten().tolist() == [6]
    assert bags.labels.tolist() == [1, 0] * 15


def test_whole_images_are_normalised_before_they_are_cut(images):
    plain, normalised = (load(images, patch_size=5, stain_normalisation=one).bags for one in ("none", "reinhard"))
    assert torch.equal(plain.coords, normalised.coords)
    image = normalise_stain(decode_image(str(images / "img1" / "img1.png"), "img1"), "reinhard")
    x, y = normalised.coords[0].tolist()
    assert torch.equal(normalised.batch(torch.tensor([0])).instances[0], torch.tensor(image[:, y : y + 5, x : x + 5]))
    assert not torch.equal(plain.batch(torch.tensor([0])).instances, normalised.batch(torch.tensor([0])).instances)


def test_every_marked_nucleus_is_an_instance(images):
    """Those without a class are negative; one class point is a pixel beside its mark."""
    first = load(images, patch_size=5, patching="detections").bags.batch(torch.tensor([0]))
    assert first.coords.tolist() == [[8, 5], [0, 0], [25, 15], [18, 6]]
    assert first.instance_labels.tolist() == [1, 0, 0, 0]


def test_the_nearest_mark_of_a_nucleus_is_positive():
    marked = np.array([[0.0, 0.0], [10.0, 0.0], [13.0, 0.0]])
    assert nearest_to(np.array([[11.0, 0.0], [10.0, 0.0]]), marked).tolist() == [False, True, False]
    assert nearest_to(np.empty((0, 2)), marked).tolist() == [False, False, False]
    assert nearest_to(marked, np.empty((0, 2))).tolist() == []


def test_patches_of_the_grid_without_a_marked_nucleus_are_left_out(images):
    """Centres (10, 7), (0, 0), (20, 8); (29, 18) and (29, 19) lie below the grid of 3 x 5 patches."""
    bags = load(images, patch_size=6, patching="grid_nuclei").bags
    first = bags.batch(torch.tensor([0, 1]))
    assert first.coords.tolist() == [[0, 0], [6, 6], [18, 6], [0, 0], [18, 6]]
    assert first.instance_labels.tolist() == [0, 1, 0, 0, 0]


def test_context_is_read_around_the_same_places(images):
    """A ramp, reduced, keeps the value at the centre of what was read; labels and coordinates stay."""
    plain, wider = (load(images, patch_size=5, context=context).bags.batch(torch.tensor([0])) for context in (5, 15))
    assert torch.equal(plain.coords, wider.coords)
    assert torch.equal(plain.instance_labels, wider.instance_labels)
    assert wider.instances.shape == plain.instances.shape
    assert wider.instances[1, :2, 2, 2].tolist() == plain.instances[1, :2, 2, 2].tolist() == [7, 10]
    assert wider.instances[0, :2, 2, 2].tolist() == [7, 7], "shifted inside at the corner"


def test_image_files_are_known_by_bag(images):
    module = load(images, patch_size=5)
    assert module.image_paths["img3"] == images / "img3" / "img3.bmp"
    assert list(module.image_paths) == module.bags.bag_ids


def test_mistakes_are_named(images):
    with pytest.raises(UserError, match=r"data.patch_size=0: must be at least 1"):
        ColonNuclei(None, "", Loading(), patch_size=0)
    with pytest.raises(UserError, match=r"data.context=26: must be at least 27"):
        ColonNuclei(None, "", Loading(), context=26)
    with pytest.raises(UserError, match="patch_size=21 exceeds an image of 30x20"):
        load(images, patch_size=21)
    with pytest.raises(UserError, match="context=21 exceeds an image of 30x20"):
        load(images, patch_size=5, context=21)
    (images / "img7" / "img7_others.mat").unlink()
    with pytest.raises(UserError, match=r"img7_others.mat: not a readable MATLAB file"):
        load(images, patch_size=5)
    (images / "img7" / "img7_others.mat").write_bytes(b"damaged" * 100)
    with pytest.raises(UserError, match=r"img7_others.mat: not a readable MATLAB file"):
        load(images, patch_size=5)
    scipy.io.savemat(images / "img7" / "img7_others.mat", {"nuclei": [1]})
    with pytest.raises(UserError, match="with an array 'detection'"):
        load(images, patch_size=5)


def test_a_missing_set_says_what_to_download(tmp_path):
    with pytest.raises(UserError, match=r"crc-histo-phenotypes .*download CRCHistoPhenotypes.*Warwick"):
        ColonNuclei(None, str(tmp_path), Loading()).setup()
    with pytest.raises(UserError, match="holds no images imgN"):
        load(tmp_path)


@pytest.fixture(scope="module")
def colon(shared_data):
    return load(shared_data("crc-histo-phenotypes"))


def test_the_published_counts_are_met(colon, shared_data):
    bags = colon.bags
    assert bags.instances.shape == (22444, 3, 27, 27)
    assert [int(bags.labels.sum()), int(bags.instance_labels.sum())] == [51, 7722]
    table = pd.read_csv(shared_data("crc-histo-phenotypes") / "counts.csv").set_index("image").loc[bags.bag_ids]
    assert bags.labels.tolist() == table["bag_label"].tolist()
    assert bags.sizes.tolist() == table[["epithelial", "fibroblast", "inflammatory", "others"]].sum(axis=1).tolist()
    assert [len(part) for part in colon.splits[1:]] == [70, 10, 20]


def test_counts_of_every_reading(shared_data, monkeypatch):
    """Patches and positive ones of 27 pixels: marked nuclei 29,756; grid 18 x 18 for each image. No bag is empty."""
    monkeypatch.setattr(colon_nuclei, "cut_patches", lambda image, corners, *sides: np.zeros((len(corners), 1)))
    monkeypatch.setattr(colon_nuclei, "decode_image", lambda *names: np.zeros((3, 500, 500), np.uint8))
    expected = {"detections": (29756, 7722), "grid": (32400, 4439), "grid_nuclei": (16254, 4439)}
    for patching, counts in expected.items():
        bags = load(shared_data("crc-histo-phenotypes"), patching=patching).bags
        assert (len(bags.instances), int(bags.instance_labels.sum())) == counts
        assert int(bags.labels.sum()) == 51
        assert int(bags.sizes.min()) > 0


def test_patches_are_those_of_the_image(colon, shared_data):
    root = shared_data("crc-histo-phenotypes")
    batch = colon.bags.batch(torch.tensor([41]))
    image = np.asarray(Image.open(root / "img42" / "img42.png").convert("RGB"))
    for patch, (x, y) in zip(batch.instances, batch.coords.tolist(), strict=True):
        assert np.array_equal(patch.permute(1, 2, 0).numpy(), image[y : y + 27, x : x + 27])


def test_patches_that_lie_wholly_inside_are_centred(colon, shared_data):
    corners = colon.bags.coords
    shifted = 0
    for bag, name in enumerate(colon.bags.bag_ids):
        centres, _ = read_nuclei(shared_data("crc-histo-phenotypes") / name / f"{name}.png")
        own = corners[colon.bags.bag_of_instance == bag].numpy()
        centred = (own + 13 == np.rint(centres)).all(axis=1)
        shifted += int((~centred).sum())
    assert shifted == 22444 - 20356
    grey = colon.bags.instances[:, :, 13, 13].float().mean(0) @ torch.tensor([0.299, 0.587, 0.114])
    assert float(grey) < 135  # nuclei are dark: with x and y swapped it is above 180


def test_every_stored_type_is_read(shared_data):
    root = shared_data("crc-histo-phenotypes")
    stored = {}
    for path in sorted(root.glob("img*/*_epithelial.mat")):
        detection = scipy.io.loadmat(path)["detection"]
        stored[detection.dtype.name] = path
        assert np.array_equal(read_centres(path) + 1, detection.astype(float).reshape(-1, 2))
    assert set(stored) == {"uint8", "uint16", "float64"}


@pytest.mark.slow
def test_five_folds_test_every_image_once(shared_data, monkeypatch):
    root = shared_data("crc-histo-phenotypes")
    monkeypatch.setattr(colon_nuclei, "cut_patches", lambda image, corners, *sides: np.zeros((len(corners), 1)))
    tested = []
    for fold in range(5):
        splits = load(root, fold=fold).splits
        assert [len(part) for part in splits[1:]] == [70, 10, 20]
        assert int(splits.bags.labels[splits.test].sum()) in (10, 11)
        tested += splits.test.tolist()
    assert sorted(tested) == list(range(100))
