"""GlaS as a set of pairs."""

import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.pairs.glas_grade import GlasGrade


def test_glas_is_divided_by_patient(shared_data):
    root = shared_data("glas")
    tested = []
    for fold in range(4):
        data = GlasGrade(str(root), "", fold=fold, num_folds=4, teacher_downsample=16, student_downsample=32)
        data._make_images = lambda source: {}  # the division alone: nothing is decoded
        data.setup()
        parts = [{data.source.cases[at] for at in positions.tolist()} for positions in data.positions.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 16
        tested += data.positions["test"].tolist()
    assert sorted(tested) == list(range(165))
    assert data.source.open(0).size[0] > 500
    assert data.source.labels.tolist().count(1) == 91


def test_a_missing_set_says_what_to_get(tmp_path):
    with pytest.raises(UserError, match="GlaS"):
        GlasGrade(None, str(tmp_path)).setup()
