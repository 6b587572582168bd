"""Tissue sections cut whole from slides."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.paired_slides import PairedSlides
from kd_mil.slides.tiles.tissue import TissueSettings


def slide_table(root, count=8, mpp=(1.0, 0.5)):
    """Slides of two tissue sections, at two resolutions."""
    lines = []
    for at in range(count):
        scale = 1.0 / mpp[at % 2]
        side = int(400 * scale)
        image = np.full((side, 2 * side, 3), 244, dtype=np.uint8)
        for left in (0.1, 1.1):
            box = slice(int(0.2 * side), int(0.8 * side)), slice(int(left * side), int((left + 0.7) * side))
            image[box] = np.random.default_rng(at).integers(0, 40, (*image[box].shape[:2], 3)) + np.array(
                [180, 60, 130]
            )
        Image.fromarray(image).save(root / f"s{at}.png")
        lines.append({"slide_path": f"s{at}.png", "label": "ab"[at // 2 % 2], "case_id": f"p{at}", "mpp": mpp[at % 2]})
    path = root / "slides.csv"
    pd.DataFrame(lines).to_csv(path, index=False)
    return path


def test_tissue_sections_become_images_of_one_resolution(tmp_path):
    path = slide_table(tmp_path)
    settings = TissueSettings(mpp=4.0)
    data = PairedSlides(str(path), settings, mpp=1.0, min_side_um=100, teacher_downsample=1, student_downsample=4)
    data.setup()
    assert len(data.source.ids) == 16
    assert data.source.scales[0] == pytest.approx(1.0)
    assert data.source.scales[2] == pytest.approx(2.0)
    sides = torch.tensor([data.images["teacher"].sizes[at] for at in range(16)]).float()
    assert (sides.amax(0) - sides.amin(0)).max() <= 12, "both kinds of slides give images of the same resolution"
    assert (sides[:, 0] - 240).abs().max() < 90
    ratio = sides / torch.tensor([data.images["student"].sizes[at] for at in range(16)])
    assert (ratio - 4).abs().max() < 0.1
    assert data.source.cases[0] == data.source.cases[1] == "p0"
    darkness = data.images["teacher"][0].float().mean((1, 2))
    assert darkness[1] < darkness[0], "the section is pink"


def test_slides_that_give_no_image_are_left_out_and_listed(tmp_path, capsys):
    path = slide_table(tmp_path, 16)
    (tmp_path / "s0.png").write_bytes((tmp_path / "s0.png").read_bytes()[:2000])
    (tmp_path / "s3.png").unlink()
    Image.new("RGB", (400, 200), "white").save(tmp_path / "s5.png")
    data = PairedSlides(str(path), TissueSettings(mpp=4.0), mpp=1.0, min_side_um=100)
    with pytest.warns(UserWarning, match="no tissue found"):
        data.setup()
    assert len(data.source.ids) == 26
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert [line.split(":")[0] for line in lines] == ["left out s0", "left out s3", "left out s5"]
    assert "not a readable image" in lines[0]
    assert "does not exist" in lines[1]
    assert "no tissue section has sides of 100 µm: lower data.min_side_um" in lines[2]
    assert list(data.left_out) == ["s0", "s3", "s5"]
    few = slide_table(tmp_path, 4)
    (tmp_path / "s2.png").unlink()
    with pytest.raises(UserError, match=r"1 images or slides are left out \(.*s2\.png' does not exist.*class . has 1"):
        PairedSlides(str(few), TissueSettings(mpp=4.0), min_side_um=100).setup()
    slide_table(tmp_path, 16)
    for name in tmp_path.glob("*.png"):
        name.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no slide gives an image: .*s0\.png.*\(15 more slides give none, too\)"):
        PairedSlides(str(path), TissueSettings(mpp=4.0)).setup()


def test_sections_of_one_slide_under_two_ids_may_not_be_in_two_parts(tmp_path):
    path = slide_table(tmp_path, 12)
    (tmp_path / "s8.png").write_bytes((tmp_path / "s0.png").read_bytes())
    table = pd.read_csv(path)
    table["split"] = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    path = tmp_path / "split.csv"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match=r"'s0' and 's8' are the same file.*in test and train"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=100).setup()
    table["split"] = ""
    table.to_csv(path, index=False)
    rows = [f"s{at}-{part},{['train', 'val', 'test'][at // 4]}" for at in range(12) for part in (0, 1)]
    (tmp_path / "parts.csv").write_text("\n".join(["image_id,split", *rows]))
    data = PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=100, split_file=str(tmp_path / "parts.csv"))
    with (
        pytest.warns(UserWarning, match="are the same file"),
        pytest.raises(UserError, match=r"'s0-0' \(train\) and .* \(test\).* have the same content"),
    ):
        data.setup()


def test_slides_too_coarse_or_sections_too_large_are_refused(tmp_path):
    path = slide_table(tmp_path, 4)
    with pytest.raises(UserError, match="coarser than the teacher's"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), mpp=0.25).setup()
    with pytest.raises(UserError, match="max_megapixels"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=100, max_megapixels=0.01).setup()
    with pytest.raises(UserError, match=r"no tissue section has sides of 9000 µm: lower data.min_side_um"):
        PairedSlides(str(path), TissueSettings(mpp=4.0), min_side_um=9000).setup()
