"""The command `kd_mil.predict`: the numbers of the run's own test, real and damaged slides, one line a mistake."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kd_mil import predict
from kd_mil.prediction.folder import Predictions
from kd_mil.slides.extraction.store import write_slide
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.tiles.tiling import Tiles
from tests.support.command import kd_mil
from tests.support.recomputed import all_recomputed

pytestmark = pytest.mark.slow
ENCODER = {"name": "resnet18", "weights": "0123456789abcdef", "features": 8, "precision": "float32"}
ENCODER |= {"preset": "uni", "output": "cls"}
TRANSFORM = {"size": 256, "interpolation": "bicubic", "mean": [0.0] * 3, "std": [1.0] * 3}
COMMON = ["trainer=cpu", "trainer.max_epochs=2", "hydra.run.dir=run"]
CLASSES = "data.classes=[normal,tumour]"


def write_features(path: Path, features: np.ndarray, tile_size: int = 256, mpp: float = 0.5, **encoder: object) -> None:
    """A file as `kd_mil.extract` writes it, its tiles eight in a row."""
    position = np.arange(len(features))
    coords = np.stack([position % 8, position // 8], 1) * 2 * tile_size
    tissue = np.ones(len(features), np.float32)
    tiles = Tiles(coords, tissue, tile_size, 2 * tile_size, mpp, 0, path.stem, (6000, 5000), mpp / 2)
    write_slide(path, tiles, features, attributes={"encoder": ENCODER | encoder, "transform": TRANSFORM})


def bag(seed: int, width: int = 8) -> np.ndarray:
    """Features of a slide; a third of the tiles of odd ones are shifted."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(int(generator.integers(10, 40)), width))
    features[: len(features) // 3] += 2 * (seed % 2)
    return features


@pytest.fixture(scope="module")
def on_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with feature files, their manifest and a run trained on them."""
    folder = tmp_path_factory.mktemp("features")
    rows = ["slide_id,label,split,feature_path"]
    for seed in range(8):
        write_features(folder / f"s{seed}.h5", bag(seed))
        label, split = ("normal", "tumour")[seed % 2], ("train", "train", "val", "test")[seed // 2 % 4]
        rows.append(f"s{seed},{label},{split},s{seed}.h5")
    (folder / "manifest.csv").write_text("\n".join(rows))
    data = ["data=feature_bags", "data.manifest=manifest.csv", CLASSES, "encoder=features", "preprocess=features"]
    kd_mil("run", "experiment=weno_dsmil", *data, *COMMON, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def on_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic slides, their list and a run trained on them."""
    folder = tmp_path_factory.mktemp("tiles")
    data = ["data=synthetic_slides", "data.synthetic.slides=10", "data.synthetic.size=768", "paths.cache_dir=cache"]
    kd_mil("run", "experiment=weno_gated_abmil", *data, *COMMON, cwd=folder)
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict", "picture_side=128", *map(str, overrides)])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # a command sets it for its process
        code = 0
        try:
            predict.start()
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
        return code, *capsys.readouterr()

    return run


def refusal(result: tuple[int, str, str]) -> str:
    """The one line of a command that ended with exit code 2."""
    code, _, errors = result
    assert code == 2, errors
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in errors
    return line


def assert_same_as_the_run(run: Path, out: Path) -> None:
    """Every test bag and instance of the run has the probabilities that its own test step wrote."""
    bags, slides = (pd.read_csv(path, index_col=0) for path in (run / "bags.csv", out / "slides.csv"))
    for role in ("teacher", "student"):
        np.testing.assert_allclose(slides.loc[bags.index, f"{role}_prob"], bags[f"{role}_prob"], atol=1e-5)
    metrics = json.loads((run / "metrics.json").read_text())
    assert slides.student_threshold.to_numpy() == pytest.approx(metrics["test/student/bag_threshold"])
    for name, there in pd.read_parquet(run / "instances.parquet").groupby("bag_id", observed=True):
        here = pd.read_parquet(out / "instances" / f"{name}.parquet")
        for column in ("x", "y", "attention", "teacher_prob", "student_prob", "student_score"):
            np.testing.assert_allclose(here[column], there[column], atol=1e-5, err_msg=f"{name} {column}")


def test_features_give_the_numbers_of_the_run(command: Callable, on_features: Path, tmp_path: Path) -> None:
    shutil.copytree(on_features / "run", tmp_path / "data.fold=1,seed=0")  # as runs are named
    ask = ("ckpt=data.fold=1,seed=0", f"features={on_features}/manifest.csv", "out=out", "instances_per_step=7")
    ask += ("in_bounds=false",)  # no slides are at hand
    code, printed, errors = command(*ask)
    assert code == 0, errors
    assert "warning" not in errors
    assert "s7" in printed
    assert str(tmp_path / "out") in printed
    assert_same_as_the_run(on_features / "run", tmp_path / "out")
    overlay = json.loads((tmp_path / "out" / "geojson" / "s1.geojson").read_text())
    tiles = [one for one in overlay["features"] if one["properties"]["objectType"] == "detection"]
    assert len(tiles) == len(bag(1))
    assert {"Tumor", "Other"} >= {one["properties"]["classification"]["name"] for one in tiles}
    assert len(list((tmp_path / "out" / "heatmaps").glob("*.png"))) == 16
    predictions = Predictions(tmp_path / "out")  # the labels of the manifest stand beside the decisions
    assert predictions.slides["label"].tolist() == ["normal", "tumour"] * 4
    scores = predictions["s1"].panel.layers[-1].scores
    assert scores == pytest.approx(predictions["s1"].tiles["student_prob"].to_numpy())
    assert f"to look at them: {Path('out') / 'index.html'}" in printed
    assert all(f"panels/s{number}.js" in (tmp_path / "out" / "index.html").read_text() for number in range(8))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "data.fold=1,seed=0"}  # nothing of Hydra's

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    table = (tmp_path / "out" / "slides.csv").read_text()
    assert command(*ask)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (tmp_path / "out" / "slides.csv").read_text() == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet50", "weights": "e" * 16}, "encoder: 'resnet50', not 'resnet18'"),
        ({"weights": "f" * 16}, "weights: 'ffffffffffffffff'"),
        ({"preset": "uni2_h", "weights": None}, "preset: 'uni2_h', not 'uni'"),
        ({"output": "cls_mean"}, "output: 'cls_mean', not 'cls'"),
        ({"mpp": 1.0}, "mpp: 1, not 0.5"),
        ({"tile_size": 128}, "tile_size: 128, not 256"),
        ({"width": 9}, "width: 9, not 8"),
    ],
)
def test_features_made_otherwise_are_left_out_and_refused_where_none_fits(
    change: dict, message: str, command: Callable, on_features: Path, tmp_path: Path
) -> None:
    write_features(tmp_path / "in" / "a.h5", bag(1))
    write_features(tmp_path / "in" / "b.h5", bag(2, change.pop("width", 8)), **change)
    line = refusal(command(f"ckpt={on_features}/run", "features=in/b.h5", "out=out"))
    assert message in line
    assert "b.h5" in line
    assert not (tmp_path / "out").exists()
    code, _, errors = command(f"ckpt={on_features}/run", "features=in", "out=out")
    assert code == 0, errors
    slides = pd.read_csv(tmp_path / "out" / "slides.csv", index_col="slide_id")
    assert slides.student_prob.isna().tolist() == [False, True]
    assert message in slides.note["b"]


def test_a_missing_feature_file_of_a_list_is_a_line_and_the_rest_is_predicted(
    command: Callable, on_features: Path, tmp_path: Path
) -> None:
    write_features(tmp_path / "a.h5", bag(1))
    (tmp_path / "list.csv").write_text("slide_id,feature_path\nb,b.h5\na,a.h5\n")
    code, _, errors = command(f"ckpt={on_features}/run", "features=list.csv", "out=out")
    assert code == 0, errors
    slides = pd.read_csv(tmp_path / "out" / "slides.csv", index_col="slide_id")
    assert slides.student_prob.isna().tolist() == [True, False]
    assert "list.csv, line 2: there is no feature file b.h5" in slides.note["b"]


def test_files_that_say_nothing_are_predicted_with_a_warning(
    command: Callable, on_features: Path, tmp_path: Path
) -> None:
    """CLAM's `pt_files`: the width is all there is to compare; no coordinates, so no pictures."""
    (tmp_path / "in").mkdir()
    torch.save(torch.from_numpy(bag(1)).float(), tmp_path / "in" / "s1.pt")
    code, _, errors = command(f"ckpt={on_features}/run", "features=in", "out=out", "table=csv")
    assert code == 0, errors
    [compared] = [line for line in errors.splitlines() if "not compared" in line]
    assert compared.startswith("warning: ")
    for name in ("encoder", "weights", "mpp", "tile_size"):
        assert f"{name} (1 of 1 files)" in compared
    assert "no level-0 coordinates" in errors
    table = pd.read_csv(tmp_path / "out" / "instances" / "s1.csv")
    assert (table.x == -1).all()
    assert not (tmp_path / "out" / "heatmaps").exists()
    torch.save(torch.zeros(3, 9), tmp_path / "in" / "s2.pt")
    assert "width: 9, not 8" in refusal(command(f"ckpt={on_features}/run", "features=in/s2.pt", "out=out"))


def test_a_slide_beside_its_features_gives_the_picture(command: Callable, on_features: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_features(tmp_path / "in" / "s1.h5", bag(1))
    Image.new("RGB", (6000, 5000), (200, 100, 200)).save(tmp_path / "s1.png")
    rows = ["slide_id,feature_path,slide_path,mpp", "s1,in/s1.h5,s1.png,0.25"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert command(f"ckpt={on_features}/run", "features=list.csv", "out=out")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "heatmaps" / "s1_student.png").convert("RGB"), int)
    assert (np.abs(picture - (200, 100, 200)).max(-1) < 3).mean() > 0.2  # the slide where no tile lies
    Image.new("RGB", (600, 500)).save(tmp_path / "s1.png")
    assert "it is not its slide" in refusal(command(f"ckpt={on_features}/run", "features=list.csv", "out=out"))


def test_slides_give_the_numbers_of_the_run(command: Callable, on_tiles: Path, tmp_path: Path) -> None:
    [listed] = on_tiles.glob("cache/**/slides.csv")
    slides = pd.read_csv(listed)
    slides["slide_path"] = [str(listed.parent / name) for name in slides.slide_path]
    slides.loc[slides.split == "test", ["slide_path"]].to_csv(tmp_path / "test.csv", index=False)
    ask = (f"ckpt={on_tiles}/run/checkpoints/best.ckpt", "slides=test.csv", "instances_per_step=5", "num_workers=1")
    code, _, errors = command(*ask, "out=out")
    assert code == 0, errors
    assert_same_as_the_run(on_tiles / "run", tmp_path / "out")


def test_a_real_slide_among_damaged_ones(
    command: Callable, on_tiles: Path, tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    """Tiles lie where the slide is stained, by a plain look at its thumbnail."""
    real = shared_data("slides") / "CMU-1-Small-Region.svs"
    (tmp_path / "in").mkdir()
    shutil.copy(real, tmp_path / "in" / "real.svs")
    (tmp_path / "in" / "cut.svs").write_bytes(real.read_bytes()[:900_000])
    (tmp_path / "in" / "empty.svs").touch()
    (tmp_path / "in" / "text.svs").write_text("no slide")
    (tmp_path / "in" / "list.csv").write_text(
        "slide_path,mpp\nreal.svs,\ncut.svs,\nempty.svs,\ntext.svs,\nglass.png,0.5"
    )
    Image.new("RGB", (900, 900), "white").save(tmp_path / "in" / "glass.png")
    code, printed, errors = command(f"ckpt={on_tiles}/run", "slides=in/list.csv", "out=out")
    assert code == 0, errors
    table = pd.read_csv(tmp_path / "out" / "slides.csv", index_col="slide_id")
    assert table.index.tolist() == ["real", "cut", "empty", "text", "glass"]
    assert table.student_prob.notna().tolist() == [True, False, False, False, False]
    assert table.note["glass"] == "no tissue"
    assert "no tissue found" in errors
    for name in ("cut", "empty", "text"):
        assert f"skipped {name}: " in errors
        assert f"without prediction: {name}: " in printed
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    tables = {"slides.csv", "index.html", "model.json", "real.parquet", "real.geojson"}
    assert left == tables | {"real_teacher.png", "real_student.png", "real.js", "real.json", "glass.json"}

    slide = open_slide(real)
    thumbnail = slide.thumbnail(600).astype(int)
    stained = np.ptp(thumbnail, axis=2) > 40
    scale = slide.dimensions[0] / thumbnail.shape[1]
    tiles, covered = pd.read_parquet(tmp_path / "out" / "instances" / "real.parquet"), np.zeros_like(stained)
    for x, y, size in tiles[["x", "y", "tile_size_level0"]].to_numpy() / scale:
        covered[round(y) : round(y + size), round(x) : round(x + size)] = True
    assert covered[stained].mean() > 0.9
    assert stained[covered].mean() > 2 * stained.mean()
    assert tiles.tile_size_level0.unique() == round(64 / slide.mpp)  # tiles of 32 pixels at 2 um

    assert "on_error=skip" in refusal(command(f"ckpt={on_tiles}/run", "slides=in/list.csv", "out=b", "on_error=stop"))
    line = refusal(command(f"ckpt={on_tiles}/run", "slides=in/text.svs", "out=c"))
    assert "no slide could be read: slide 'in/text.svs' cannot be opened" in line


def test_metrics_of_a_run_on_slides_are_those_of_its_tables(on_tiles: Path) -> None:
    assert {"instance_froc", "instance_dice_tuned", "instance_iou_tuned"} <= all_recomputed(on_tiles / "run")


def test_an_external_cohort_is_scored_by_an_ensemble(command: Callable, on_features: Path, tmp_path: Path) -> None:
    """Two members that are one run say what it says, without spread; the scores are those of `slides.csv`."""
    for name in ("fold=0,seed=1", "fold=1,seed=1"):
        shutil.copytree(on_features / "run", tmp_path / "runs" / name)
    labels = pd.read_csv(on_features / "manifest.csv")[["slide_id", "label"]].assign(case_id=list("aabbccdd"))
    labels.iloc[:7].assign(site="north").to_csv(tmp_path / "labels.csv", index=False)
    ask = (f"features={on_features}/manifest.csv", "operating_point=sensitivity_95", "calibrated=true")
    members = "ckpt=[runs/fold=0,seed=1,runs/fold=1,seed=1]"
    code, printed, errors = command(
        members, *ask, "labels=labels.csv", "report_by=case", "subgroups=[site]", "out=both"
    )
    assert code == 0, errors
    assert "decided by the teacher at operating_point=sensitivity_95" in printed
    alone = command("ckpt=runs/fold=0,seed=1", *ask, "out=alone")
    assert alone[0] == 0, alone[2]
    both, one = (pd.read_csv(tmp_path / out / "slides.csv", index_col=0) for out in ("both", "alone"))
    for column in ("teacher_prob", "student_prob", "teacher_threshold", "teacher_calibrated"):
        np.testing.assert_allclose(both[column], one[column], atol=1e-6)
    assert both.teacher_spread.max() == pytest.approx(0, abs=1e-6)
    assert [name for name in both if name.endswith("_decision")] == ["teacher_decision"]
    metrics = json.loads((tmp_path / "both" / "evaluation" / "metrics.json").read_text())
    cases = both.iloc[:7].groupby(list("aabbccd")).teacher_prob.max()
    right = (cases >= metrics["thresholds"]["teacher"]).to_numpy() == [True, True, True, False]
    assert metrics["teacher/case_accuracy"] == pytest.approx(right.mean()), "every case but d has a tumour slide"
    assert metrics["left_out"] == {"s7": "no label"}
    assert command("ckpt=runs", *ask, "out=all")[0] == 0
    assert json.loads((tmp_path / "all" / "model.json").read_text())["members"] == 2


def test_each_mistake_is_one_line(command: Callable, on_features: Path, on_tiles: Path, tmp_path: Path) -> None:
    features, tiles, files = f"ckpt={on_features}/run", f"ckpt={on_tiles}/run", f"features={on_features}/manifest.csv"
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("slide_id,feature_path\na,b.h5")
    (tmp_path / "text.ckpt").write_text("hi\n")
    (tmp_path / "s1.csv").write_text("slide_id,feature_path\n../s1,list.csv")
    (tmp_path / "benign.csv").write_text("slide_id,label,site\ns0,,A\ns1,benign,A")
    (tmp_path / "blank.csv").write_text("slide_id,label\ns0,\ns1,")
    (tmp_path / "elsewhere.csv").write_text("slide_id,label\ns77,tumour")
    for ask, message in (
        ((files,), "ckpt is not set"),
        (("ckpt=none.ckpt", files), "none.ckpt does not exist"),
        (("ckpt=text.ckpt", files), "text.ckpt is damaged or no checkpoint at all"),
        ((features,), "give slides=FOLDER"),
        ((features, "slides=empty"), "was trained on features (encoder resnet18"),
        ((tiles, files), "was trained on tiles"),
        ((tiles, "slides=empty"), "no slides in 'empty'"),
        ((features, "features=empty"), "empty has no feature files"),
        ((features, "features=list.csv"), "list.csv, line 2: there is no feature file b.h5"),
        ((features, "features=s1.csv"), "'../s1' cannot name a file"),
        ((features, files, "table=xlsx"), "table=xlsx: choose parquet or csv"),
        ((features, files, "picture_side=0"), "picture_side=0: must be a whole number, at least 1"),
        ((features, files, "instances_per_step=0.5"), "instances_per_step=0.5"),
        ((features, files, "num_workers=-1"), "num_workers=-1"),
        ((features, files, "backend=vips"), "backend=vips: choose openslide"),
        ((features, files, "device=gpu"), "device='gpu'"),
        ((features, files, "on_error=go"), "on_error=go: choose skip or stop"),
        ((features, files, "thresold=1"), "thresold"),
        ((features, files, "labels=none.csv"), "labels=none.csv: no such file"),
        ((features, files, "labels=benign.csv"), "benign.csv, line 3: the model knows no class 'benign'"),
        (
            (features, files, "labels=benign.csv", "subgroups=[sit]"),
            "no column 'sit'; known: site; did you mean 'site'?",
        ),
        ((features, files, "labels=blank.csv"), "blank.csv: no slide has a label"),
        ((features, files, "labels=elsewhere.csv"), "slide 's77' is not among the 8 slides; known: s0, s1, s2"),
        ((features, files, "subgroups=[site]"), "subgroups=[site]: give labels=CSV with these columns"),
        ((features, files, "operating_point=yoden"), "operating_point=yoden: choose youden"),
        ((f"ckpt=[{on_features}/run,{on_tiles}/run]", files), "differ in"),
    ):
        assert message in refusal(command(*ask, "out=out"))
        assert not (tmp_path / "out").exists()
    assert "list.csv' is no folder" in refusal(command(features, files, "out=list.csv/out"))


def test_a_checkpoint_from_elsewhere_runs_nothing_of_its_own(
    command: Callable, on_features: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(on_features / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    ask = ("ckpt=bad.ckpt", f"features={on_features}/s1.h5", "out=out")
    encoder = checkpoint["model_card"]["method"].pop("encoder")
    for evil in ({"_target_": "os.mkdir", "path": "made"}, "${oc.create:{_target_: os.mkdir, path: made}}"):
        checkpoint["model_card"]["method"]["encoder"] = evil
        torch.save(checkpoint, tmp_path / "bad.ckpt")
        assert "refused; trust=true" in refusal(command(*ask))
        assert not (tmp_path / "made").exists()
    checkpoint["model_card"]["method"]["encoder"] = encoder
    name, weights = next((name, value) for name, value in checkpoint["state_dict"].items() if name.endswith("weight"))
    weights[0] = math.nan
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    assert f"weights {name} are NaN or infinite" in refusal(command(*ask))
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    assert "does not fit this version of kd_mil" in refusal(command(*ask))
