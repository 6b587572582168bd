"""Tiles of low magnification with a teacher's word: whose, of which slides, and what nobody knows."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.datamodules import Loading
from kd_mil.data.tiles.taught_slides import TaughtSlides, of_most_positive, taught_tiles
from kd_mil.slides.tiles.tiling import TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings


def cut(tmp_path, columns, attention=True):
    """One tile of 64 pixels over two of 32 of the teacher's, one over none, and one over a single one."""
    (tmp_path / "instances").mkdir()
    table = {"x": [0, 32, 128], "y": [0, 0, 0], "tile_size_level0": 32} | columns
    table |= {"attention": [0.25, 0.25, 0.5]} if attention else {}
    pd.DataFrame(table).to_parquet(tmp_path / "instances" / "s.parquet")
    tiles = SimpleNamespace(coords=np.array([[0, 0], [64, 0], [128, 0]]), tile_size_level0=64)
    return SimpleNamespace(entry=SimpleNamespace(slide_id="s"), tiles=tiles)


def test_a_tile_is_as_positive_as_the_most_positive_of_its_own(tmp_path):
    found = taught_tiles(cut(tmp_path, {"student_prob": [0.2, 0.75, 0.5]}), tmp_path, "student", ["n", "t"], False)
    assert found.probs[0].tolist() == [0.25, 0.75]
    assert found.probs[1].isnan().all()
    assert found.probs[2].tolist() == [0.5, 0.5]
    assert found.attention.tolist() == [0.5, 0, 0.5]


def test_negative_slides_are_known_and_keep_the_teachers_attention(tmp_path):
    found = taught_tiles(cut(tmp_path, {"student_prob": [0.2, 0.75, 0.5]}), tmp_path, "student", ["n", "t"], True)
    assert found.probs.tolist() == [[1, 0]] * 3
    assert found.attention.tolist() == [0.5, 0, 0.5]


def test_without_attention_probabilities_guide(tmp_path):
    one = cut(tmp_path, {"model_prob": [0.1, 0.3, 0.3]}, attention=False)
    assert taught_tiles(one, tmp_path, "model", ["n", "t"], False).attention.tolist() == pytest.approx([0.5, 0, 0.5])


def test_several_classes(tmp_path):
    columns = {"student_prob_n": [0.8, 0.2, 1.0], "student_prob_a": [0.1, 0.2, 0.0], "student_prob_b": [0.1, 0.6, 0.0]}
    found = taught_tiles(cut(tmp_path, columns), tmp_path, "student", ["n", "a", "b"], False)
    assert found.probs[0].tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert of_most_positive(np.array([[0.5, 0.5, 0.25]])).tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"give one of them"):
        TaughtSlides("slides.csv", Loading(), tiling=TilingSettings(mpp=4.0), tissue=TissueSettings()).setup()
    with pytest.raises(UserError, match="has no column 'teacher_prob'"):
        taught_tiles(cut(tmp_path, {"student_prob": [0.2, 0.75, 0.5]}), tmp_path, "teacher", ["n", "t"], False)
    with pytest.raises(UserError, match=r"run kd_mil\.predict"):
        taught_tiles(SimpleNamespace(entry=SimpleNamespace(slide_id="z")), tmp_path, "student", ["n", "t"], False)
