"""A method on images asked about slides and images: the numbers of its network on the pieces, and the files."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from kd_mil.cards.card import own_card
from kd_mil.cli.command import CONFIG_DIR
from kd_mil.core.errors import UserError
from kd_mil.data.pairs.paired_slides import PairedSlides
from kd_mil.data.pairs.paired_tiles import PairedTiles
from kd_mil.jobs import predict
from kd_mil.methods.resolution.pair_augment import PairAugment
from kd_mil.methods.resolution.pair_loss import PairLoss
from kd_mil.methods.resolution.resolution import ResolutionDistillation
from kd_mil.models.resnet_gn import ResNetGN
from kd_mil.plot.slides import heatmap
from kd_mil.prediction.cases import case_table
from kd_mil.prediction.decisions import Model
from kd_mil.prediction.folder import Predictions
from kd_mil.prediction.image_model import pooled
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.pieces import read_piece
from kd_mil.slides.tiles.tissue import TissueSettings

TISSUE = TissueSettings(mpp=4.0, min_area_um2=0)


def slides(root, count=8):
    """Slides of two sections of unequal size."""
    rows = []
    for at in range(count):
        image = np.full((320, 640, 3), 244, dtype=np.uint8)
        for left, width in ((32, 256), (416, 128)):
            noise = np.random.default_rng(at).integers(0, 40, (224, width, 3))
            image[32:256, left : left + width] = noise + np.array([180, 60, 130])
        Image.fromarray(image).save(root / f"s{at}.png")
        part = ("train", "train", "val", "test")[at // 2 % 4]
        rows.append({"slide_path": f"s{at}.png", "label": "ab"[at % 2], "split": part, "mpp": 1.0, "case_id": at // 2})
    pd.DataFrame(rows).to_csv(root / "slides.csv", index=False)
    return str(root / "slides.csv")


def checkpoint(root, data, lacks=(), **settings):
    """A checkpoint of an untrained student, as a run writes it."""
    data.setup()
    torch.manual_seed(3)
    parts = {"loss": PairLoss(), "augment": PairAugment(), "optimizer": partial(torch.optim.Adam, lr=0.1)}
    network = partial(ResNetGN, stem="small", width=8, groups=4)
    method = ResolutionDistillation(**data.model_inputs, network=network, **parts, **settings).eval()
    method.student_updates += 1
    card = own_card(method.call, data)
    for name in lacks:
        card["model_inputs"].pop(name)
    torch.save({"state_dict": method.state_dict(), "model_card": card}, root / "student.ckpt")
    return method


def predicted(root, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        given = [f"ckpt={root}/student.ckpt", f"out={root}/out", "num_workers=0", "device=cpu", *overrides]
        predict.main(compose("predict", overrides=given))
    return pd.read_csv(root / "out" / ("images.csv" if "images" in str(overrides) else "slides.csv"))


def asked(method, slide, box, reading="pyramid"):
    """The student's probability of the second class of a piece at 4 µm, by hand."""
    pixels = np.asarray(read_piece(slide, box, 4.0, reading)).copy()
    with torch.no_grad():
        return method.student(torch.from_numpy(pixels).permute(2, 0, 1)[None]).logits.double().softmax(1)[0, 1].item()


def test_sections_of_a_slide_its_case_and_a_damaged_one(tmp_path):
    path = slides(tmp_path)
    method = checkpoint(tmp_path, PairedSlides(path, TISSUE, min_side_um=100, student_downsample=4))
    (tmp_path / "s3.png").write_bytes(b"no picture")
    table = predicted(tmp_path, f"slides={path}").set_index("slide_id")
    assert "not a readable image" in table.note["s3"]
    pieces = pd.read_parquet(tmp_path / "out" / "instances" / "s0.parquet")
    slide = open_slide(tmp_path / "s0.png", 1.0)
    boxes = pieces[["x", "y", "width", "height"]].to_numpy().tolist()
    assert len(boxes) == 2
    assert boxes[0][2] != boxes[1][2]
    assert pieces.student_prob.tolist() == pytest.approx([asked(method, slide, box) for box in boxes], abs=1e-4)
    assert table.student_prob["s0"] == pytest.approx(pieces.student_prob.mean())
    cases = pd.read_csv(tmp_path / "out" / "cases.csv").set_index("case_id")
    assert cases.student_prob[0] == pytest.approx(table.student_prob[["s0", "s1"]].mean())
    assert cases.slides.tolist() == [2, 1, 2, 2]
    assert (tmp_path / "out" / "heatmaps" / "s0_student.png").is_file()
    shapes = json.loads((tmp_path / "out" / "geojson" / "s0.geojson").read_text())["features"]
    rings = [np.array(one["geometry"]["coordinates"][0]) for one in shapes if one["properties"]["name"].startswith("p")]
    assert [np.ptp(ring, 0).tolist() for ring in rings] == [box[2:] for box in boxes]
    axes = heatmap(Predictions(tmp_path / "out")["s0"])
    assert axes.get_title().startswith("s0\nstudent: ")
    again = predicted(tmp_path, f"slides={path}", "read_from=level0", "out=" + str(tmp_path / "out"))
    assert again.student_prob[0] != table.student_prob["s0"], "read otherwise, predicted again"


def test_tiles_of_slides_and_image_files(tmp_path):
    path = slides(tmp_path)
    data = PairedTiles(path, TISSUE, "slides", tile_size=64, student_downsample=4)
    method = checkpoint(tmp_path, data)
    table = predicted(tmp_path, f"slides={path}")
    pieces = pd.read_parquet(tmp_path / "out" / "instances" / "s0.parquet")
    side = int(pieces.tile_size_level0[0])
    box = (int(pieces.x[0]), int(pieces.y[0]), side, side)
    assert pieces.student_prob[0] == pytest.approx(asked(method, open_slide(tmp_path / "s0.png", 1.0), box), abs=1e-4)
    assert table.student_prob[0] == pytest.approx(pieces.student_prob.max())
    assert table.tiles[0] == len(pieces) > 10
    with pytest.raises(UserError, match="give mpp=UM_PER_PIXEL of the images"):
        predicted(tmp_path, f"images={tmp_path}")
    images = predicted(tmp_path, f"images={tmp_path}", "mpp=2.0").set_index("image_id")
    whole = torch.from_numpy(np.asarray(Image.open(tmp_path / "s0.png").resize((320, 160), Image.Resampling.LANCZOS)))
    with torch.no_grad():
        probs = method.student(whole.permute(2, 0, 1)[None]).logits.double().softmax(1)
    assert images.student_prob["s0"] == pytest.approx(probs[0, 1].item(), abs=1e-4)
    (tmp_path / "images.csv").write_text("image_path,image_id,label\ns0.png,a,normal\ns1.png,b,\n")
    listed = predicted(tmp_path, f"images={tmp_path / 'images.csv'}", "mpp=2.0").set_index("image_id")
    assert listed.label.fillna("").to_dict() == {"a": "normal", "b": ""}


@pytest.mark.parametrize(
    ("lacks", "overrides", "message"),
    [
        (["source"], [], "does not say mpp, tissue and margin"),
        ([], ["role=model"], "role=model: choose teacher or student"),
        ([], ["features=x"], "features=x: only for checkpoints of methods on bags"),
        ([], ["images=x"], "one of them"),
    ],
)
def test_mistakes(lacks, overrides, message, tmp_path):
    path = slides(tmp_path)
    checkpoint(tmp_path, PairedSlides(path, TISSUE, min_side_um=100, student_downsample=4), lacks)
    with pytest.raises(UserError, match=message):
        predicted(tmp_path, f"slides={path}", *overrides)


def test_pooling_by_hand():
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1]], dtype=torch.float64)
    assert pooled(probs, "mean")[0].tolist() == pytest.approx([0.5, 0.8 / 3, 0.7 / 3])
    assert pooled(probs[:, :2] / probs[:, :2].sum(1, keepdim=True), "max")[0].tolist() == pytest.approx([4 / 9, 5 / 9])
    table = pd.DataFrame(
        {"slide_id": ["a", "b", "c", "d"], "tiles": [1, 3, 2, None], "student_prob": [0.9, 0.1, 0.4, None]}
    )
    cases, model = {"a": "p", "b": "p", "c": "q", "d": "q"}, Model(["n", "t"], {"student": 0.5}, {}, "", "")
    mean = case_table(table, "slide", cases, model, "student", "mean")
    assert mean.student_prob.tolist() == pytest.approx([0.3, 0.4])
    assert (mean.slides.tolist(), mean.tiles.tolist()) == ([2, 1], [4, 2])
    assert case_table(table, "slide", cases, model, "student", "max").student_decision.tolist() == ["t", "n"]
