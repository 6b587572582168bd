"""`kd_mil.predict(...)`, `kd_mil.evaluate(...)`, `kd_mil.extract(...)`: commands as functions."""

import pandas as pd
import pytest

import kd_mil
from kd_mil.core.errors import UserError
from kd_mil.core.run_files import write_json
from tests.support.predicted import predicted_folder


def test_an_evaluation_from_python(tmp_path):
    names = [f"s{number}" for number in range(4)]
    folder = predicted_folder(tmp_path / "predicted", names)
    half = {"teacher": 0.5, "student": 0.5}
    model = {"class_names": ["normal", "tumour"], "decides": "student", "operating_point": "youden", "members": 1}
    model |= {"experiment": "e", "checkpoint": "c", "temperatures": {"teacher": 1.0, "student": 1.0}}
    write_json(folder / "model.json", model | {f"{name}thresholds": half for name in ("", "case_", "instance_")})
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"slide_id": names, "label": ["tumour", "normal"] * 2}).to_csv(labels, index=False)
    out = kd_mil.evaluate(predictions=folder, labels=labels, out=tmp_path / "scores", resamples=20)
    assert out == tmp_path / "scores"
    assert list(out.glob("*.csv"))


@pytest.mark.parametrize(
    ("call", "settings", "message"),
    [
        ("predict", {"ckp": "x"}, "kd_mil.predict has no setting ckp; did you mean ckpt"),
        ("predict", {"ckpt": "nowhere.ckpt", "features": "x"}, "checkpoint nowhere.ckpt does not exist"),
        ("extract", {"out": "x"}, "slides= is not set"),
        ("extract", {"slides": "nowhere", "out": "x", "encoder": "identity"}, "nowhere"),
    ],
)
def test_mistakes_are_exceptions(call, settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        getattr(kd_mil, call)(**settings)
