"""Why a model cannot be had, told apart: gated, unknown, out of reach, no files of timm."""

import time
from types import SimpleNamespace

import pytest
import timm.models._hub as timm_hub
from huggingface_hub import constants, errors

from kd_mil.core.errors import UserError
from kd_mil.models import published_weights
from kd_mil.models.encoders.timm_encoder import TimmEncoder

NAME = "hf-hub:MahmoodLab/UNI"
NO_FILE = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)


def answered(kind, code):
    """An error of the hub's client as it raises it on an answer of the server; its versions differ in the answer."""
    response = SimpleNamespace(headers={}, status_code=code, request=None, text="", json=dict)
    return kind(f"{code} Client Error.", response=response)


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers with an error; returns the list of files asked for."""
    asked = []

    def answer_with(make):
        def download(repo_id, filename, **_):
            asked.append(filename)
            raise make()

        monkeypatch.setattr(timm_hub, "hf_hub_download", download)
        return asked

    monkeypatch.setattr(published_weights, "answers", lambda host, port: True)
    return answer_with


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: answered(errors.GatedRepoError, 401),
            r"is gated: accept its licence at https://.*/MahmoodLab/UNI, set HF_",
        ),
        (lambda: answered(errors.RepositoryNotFoundError, 401), "is not on the hub, or private: check https"),
        (lambda: answered(NO_FILE, 404), r"has no files of timm: name the architecture"),
        (
            lambda: errors.LocalEntryNotFoundError("x"),
            r"not fetched before, and the network is out of reach: connect once",
        ),
        (lambda: errors.OfflineModeIsEnabled("x"), r"not fetched before, and the network is out of reach"),
        (lambda: answered(errors.HfHubHTTPError, 503), r"cannot be had \(503 Client Error"),
    ],
)
def test_one_line_says_why_after_one_request(hub, make, message):
    asked = hub(make)
    with pytest.raises(UserError, match=message) as caught:
        TimmEncoder((3, 224, 224), NAME, pretrained=True)
    assert len(str(caught.value).splitlines()) == 1
    assert asked == ["config.json"]


def test_a_gated_file_behind_another_error_is_still_gated(hub):
    def chained():
        error = errors.LocalEntryNotFoundError("x")
        error.__cause__ = answered(errors.GatedRepoError, 403)
        return error

    hub(chained)
    with pytest.raises(UserError, match="is gated"):
        TimmEncoder((3, 224, 224), NAME, pretrained=True)


def test_without_a_network_the_answer_comes_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(published_weights, "answers", lambda host, port: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(UserError, match="was not fetched before, and the network is out of reach"):
        TimmEncoder((3, 224, 224), NAME, pretrained=True)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no weights that can be read safely"), (b"\x80\x04K\x01.", "no weights that can be read safely")],
)
def test_a_file_that_is_no_file_of_weights(content, message, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=message):
        TimmEncoder((3, 32, 32), "resnet10t", weights=str(tmp_path / "weights.pth"))


def test_folders_without_one_file_of_weights(tmp_path):
    with pytest.raises(UserError, match=r"holds no weights: expected model.safetensors or pytorch_model.bin"):
        TimmEncoder((3, 32, 32), "resnet10t", weights=str(tmp_path))
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds 2 files \*.pth: give one as encoder.weights=FILE"):
        TimmEncoder((3, 32, 32), "resnet10t", weights=str(tmp_path))
