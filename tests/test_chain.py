"""From slide labels to masks in one command."""

import importlib.util
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
from omegaconf import OmegaConf

from kd_mil.chain import refuse
from kd_mil.core.errors import UserError
from kd_mil.jobs.chain import run, steps
from kd_mil.slides.synthetic.build import SyntheticSettings, build_synthetic_slides
from tests.support.command import kd_mil
from tests.support.configs import compose_run

SETTINGS = {"slides": "a list.csv", "out": "o=ut", "classes": ["normal", "tumour"], "runs": "seed=1", "segment": ""}
SETTINGS |= {"weno": "experiment=weno_dsmil tiling=2um_32", "ifkd": "data.positive_from=0.8"}


def test_each_step_reads_what_the_one_before_wrote():
    weno, mark, ifkd, segment = steps(SETTINGS)
    assert [step.module for step in (weno, mark, ifkd, segment)] == ["run", "predict", "run", "segment"]
    assert "hydra.run.dir='o=ut/weno'" in weno.arguments
    assert "ckpt='o=ut/weno'" in mark.arguments
    assert {"data.predictions='o=ut/tiles'", "data.slide_splits='o=ut/weno/splits.csv'"} <= set(ifkd.arguments)
    assert "ckpt='o=ut/ifkd'" in segment.arguments


def test_the_settings_of_both_runs_compose():
    weno, _, ifkd, _ = steps(SETTINGS)
    first, second = compose_run(*weno.arguments), compose_run(*ifkd.arguments)
    assert first.data.slides == second.data.slides == "a list.csv"
    assert first.tiling.mpp == 2.0
    assert second.experiment_name == "ifkd_from_weno"
    assert (second.data.positive_from, second.seed) == (0.8, 1)
    assert list(second.data.classes) == ["normal", "tumour"]


@pytest.mark.parametrize(("code", "what"), [(2, "found a mistake, see above"), (1, "failed with exit code 1")])
def test_a_step_that_fails_ends_the_chain(monkeypatch, code, what):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code))
    with pytest.raises(UserError, match=f"step 'WENO on slide labels' {what}"):
        run(steps(SETTINGS)[0])


def test_slides_must_be_given():
    with pytest.raises(UserError, match="slides is not set"):
        refuse(OmegaConf.create(SETTINGS | {"slides": None}))


@pytest.mark.parametrize(("ifkd", "refused"), [("", True), ("segmenter=vgg_mil", False)])
def test_weights_of_the_third_step_are_asked_for_before_the_first(ifkd, refused, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    settings = OmegaConf.create(SETTINGS | {"out": str(tmp_path), "ifkd": ifkd})
    if refused:
        with pytest.raises(UserError, match=r"pip install 'kd-mil\[lite\]'"):
            refuse(settings)
    else:
        refuse(settings)


@pytest.mark.slow
def test_slide_labels_in_masks_and_outlines_out(tmp_path):
    settings = SyntheticSettings(slides=10, size=768, mpp=1.0, slides_per_case=1)
    slides = build_synthetic_slides(tmp_path, settings, seed=0)
    small = ["weno=experiment=weno_dsmil tiling=2um_32 encoder=tiny_cnn trainer.max_epochs=1", "runs=trainer=cpu"]
    small.append("ifkd=phase_epochs=1 segmenter=vgg_mil_small data.tile_size=64 data.positive_from=0.001")
    kd_mil("chain", f"slides={slides}", "out=chain", *small, cwd=tmp_path)
    segments = pd.read_csv(tmp_path / "chain" / "segments" / "segments.csv")
    assert len(segments) == 10
    for kind, suffix in (("masks", "png"), ("geojson", "geojson")):
        assert len(list((tmp_path / "chain" / "segments" / kind).glob(f"*.{suffix}"))) == 10
