"""Extraction of slides in object stores, fsspec's memory and S3: copied one after the other, in bounds."""

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.extraction.extraction import Extraction
from kd_mil.slides.extraction.pictures import Pictures
from kd_mil.slides.extraction.redrawing import draw_missing
from kd_mil.slides.extraction.results import write_tables
from kd_mil.slides.extraction.slide_cache import GIBIBYTE, SlideCache
from kd_mil.slides.extraction.store import read_slide
from kd_mil.slides.remote_slides import list_all_slides
from kd_mil.slides.slide_list import list_slides
from kd_mil.slides.tiles.cutting import Cutting
from kd_mil.slides.tiles.tiling import TilingSettings

CUTTING = Cutting(TilingSettings(tile_size=32, mpp=1.0), mpp=1.0)


class MeanColour:
    """An encoder that notes how much lies in the cache while it works."""

    device = torch.device("cpu")
    num_features = 3
    identity, transform = {"name": "mean_colour"}, {"size": 32}

    def __init__(self, cache=None):
        self.cache, self.held = cache, []

    def __call__(self, tiles):
        if self.cache is not None:
            self.held.append(sum(path.stat().st_size for path in self.cache.folder.rglob("*") if path.is_file()))
        return tiles.float().mean(dim=(1, 2))


@pytest.fixture
def folder(tmp_path):
    """Five small slides on the disk."""
    rng = np.random.default_rng(0)
    (tmp_path / "slides").mkdir()
    for number in range(5):
        pixels = np.full((160, 192, 3), 240, np.uint8)
        pixels[16:144, 16:144] = rng.integers((150, 60, 120), (220, 120, 180), (128, 128, 3))
        Image.fromarray(pixels).save(tmp_path / "slides" / f"s{number}.png")
    return tmp_path / "slides"


@pytest.fixture(params=["memory", "s3"])
def bucket(request, folder, tmp_path):
    """The same in a bucket; the URL of their folder."""
    store = "memory://bucket" if request.param == "memory" else request.getfixturevalue(request.param)
    url = f"{store}/{tmp_path.name}/slides"
    put(folder, url)
    return url


def put(folder, url):
    for path in folder.iterdir():
        with fsspec.open(f"{url}/{path.name}", "wb") as file:
            file.write(path.read_bytes())


@pytest.fixture
def downloads(monkeypatch):
    """URLs of what is downloaded or opened from now on."""
    urls = []
    for name in ("kd_mil.slides.extraction.slide_cache.download", "kd_mil.core.object_stores.download"):
        module, function = name.rsplit(".", 1)
        original = getattr(__import__(module, fromlist=[function]), function)

        def noted(file, place, original=original):
            urls.append(file.url.rpartition("/")[2])
            original(file, place)

        monkeypatch.setattr(name, noted)
    return urls


def extract(entries, out, cache, gib=1.0, num_workers=0, **more):
    with SlideCache(cache, gib) as held:
        encoder = MeanColour(held)
        extraction = Extraction(entries, out, CUTTING, encoder, num_workers=num_workers, cache=held, **more)
        outcomes = extraction.run()
        draw_missing(extraction)
        assert held.held == 0
        assert not list(held.folder.iterdir())
    return outcomes, encoder


@pytest.mark.parametrize(("slides", "num_workers"), [(1, 0), (2, 0), (1, 1)])
def test_features_are_those_of_local_slides_and_copies_stay_within_the_bound(
    folder, bucket, tmp_path, slides, num_workers
):
    """Room for one slide, while the loader would read several ahead: it is asked again when there is room."""
    plain = Extraction(list_slides(folder), tmp_path / "plain", CUTTING, MeanColour()).run()
    most = slides * max(path.stat().st_size for path in folder.iterdir())
    entries = list_all_slides(bucket, tmp_path / "tables")
    outcomes, encoder = extract(entries, tmp_path / "out", tmp_path / "cache", most / GIBIBYTE, num_workers)
    assert [one.status for one in outcomes] == ["written"] * 5, [one.message for one in outcomes]
    assert 0 < max(encoder.held) <= most
    for one, other in zip(plain, outcomes, strict=True):
        first, second = read_slide(one.path), read_slide(other.path)
        np.testing.assert_array_equal(first.features, second.features)
        assert first.attributes["slide"]["content"] == second.attributes["slide"]["content"]


def test_a_restart_copies_nothing_and_the_manifest_names_urls(folder, bucket, tmp_path, downloads):
    entries = list_all_slides(bucket, tmp_path / "tables")
    outcomes, _ = extract(entries, tmp_path / "out", tmp_path / "cache", pictures=Pictures(tmp_path / "out"))
    assert sorted(downloads) == [f"s{number}.png" for number in range(5)]
    manifest = write_tables(outcomes, tmp_path / "out")
    listed = pd.read_csv(manifest).slide_path
    assert listed.tolist() == [one.place for one in entries]
    assert listed.str.startswith(("memory://", "s3://")).all()
    downloads.clear()
    again = list_all_slides(manifest, tmp_path / "tables")
    for _ in range(2):
        outcomes, _ = extract(again, tmp_path / "out", tmp_path / "cache", pictures=Pictures(tmp_path / "out"))
        assert [one.status for one in outcomes] == ["kept"] * 5
        assert downloads == []
        next((tmp_path / "out" / ".finished").iterdir()).unlink(missing_ok=True)  # then by samples of the content
    moved, _ = extract(list_slides(folder), tmp_path / "out", tmp_path / "cache")
    assert [one.status for one in moved] == ["kept"] * 5, "the same slides on a disk"
    (tmp_path / "out" / "qc" / "s3.jpg").unlink()
    extract(again, tmp_path / "out", tmp_path / "cache", pictures=Pictures(tmp_path / "out"))
    assert downloads == ["s3.png"]
    assert (tmp_path / "out" / "qc" / "s3.jpg").is_file()


def test_another_slide_of_the_same_name_is_refused(folder, bucket, tmp_path):
    extract(list_all_slides(bucket, tmp_path / "tables"), tmp_path / "out", tmp_path / "cache")
    Image.open(folder / "s1.png").rotate(180).save(folder / "s1.png")
    put(folder, bucket)
    outcomes, _ = extract(list_all_slides(bucket, tmp_path / "tables"), tmp_path / "out", tmp_path / "cache")
    assert [one.status for one in outcomes] == ["kept", "failed", *["kept"] * 3]
    assert "was made from another slide than" in outcomes[1].message


def test_slides_that_cannot_be_had_fail_alone(folder, bucket, tmp_path):
    rows = [f"{bucket}/s0.png,a", f"{bucket}/none.png,b", f"{bucket}/s1.mrxs,c", f"{folder}/s2.png,d"]
    (tmp_path / "list.csv").write_text("\n".join(["slide_path,slide_id", *rows]))
    with fsspec.open(f"{bucket}/s1.mrxs", "wb") as file:
        file.write(b"x")
    entries = list_all_slides(tmp_path / "list.csv", tmp_path / "tables")
    outcomes, _ = extract(entries, tmp_path / "out", tmp_path / "cache")
    assert [one.status for one in outcomes] == ["written", "failed", "failed", "written"]
    assert outcomes[1].message == f"{bucket}/none.png: no such file or folder"
    assert "slides of several files are not read from object stores" in outcomes[2].message
    outcomes, _ = extract(entries[:1], tmp_path / "other", tmp_path / "cache", gib=1e-6)
    assert outcomes[0].status == "failed"
    assert "no room in cache=" in outcomes[0].message


def test_lists_and_annotations_in_stores_patterns_and_single_slides(bucket, tmp_path, recwarn):
    with fsspec.open(f"{bucket}/list.csv", "w") as file:
        file.write("slide_path,annotation_path\ns0.png,drawn/s0.png\ns1.png,\n")
    mask = np.zeros((160, 192), np.uint8)
    mask[16:80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with fsspec.open(f"{bucket}/drawn/s0.png", "wb") as file:
        file.write((tmp_path / "mask.png").read_bytes())
    entries = list_all_slides(f"{bucket}/list.csv", tmp_path / "tables")
    assert [entry.place for entry in entries] == [f"{bucket}/s0.png", f"{bucket}/s1.png"]
    outcomes, _ = extract(entries, tmp_path / "out", tmp_path / "cache")
    assert read_slide(outcomes[0].path).tumour_fraction.max() == 1
    assert read_slide(outcomes[1].path).tumour_fraction is None
    with fsspec.open(f"{bucket}/m.mrxs", "wb") as file:
        file.write(b"x")
    assert [one.slide_id for one in list_all_slides(bucket, tmp_path)] == [f"s{number}" for number in range(5)]
    assert "1 files of MIRAX, DICOM or VMS slides are left out" in str(recwarn.pop().message)
    assert [one.slide_id for one in list_all_slides(f"{bucket}/s[34].png", tmp_path)] == ["s3", "s4"]
    assert [one.slide_id for one in list_all_slides(f"{bucket}/s2.png", tmp_path)] == ["s2"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://bucket/nothing", "no such file or folder|no slides in"),
        ("memory://bucket/none.csv", "memory://bucket/none.csv: no such file or folder"),
        ("nosuchprotocol://x", r"pip install 'kd-mil\[remote\]'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        list_all_slides(source, tmp_path)
    with pytest.raises(UserError, match=r"give cache=FOLDER"):
        list_all_slides(source, None)
    with pytest.raises(UserError, match=r"are read by kd_mil\.extract, with cache=FOLDER"):
        list_slides(source)
