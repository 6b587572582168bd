"""Without a network, published weights are had at once or not at all."""

import socket
import time

import pytest
import timm
from huggingface_hub import constants

from kd_mil.models import published_weights
from kd_mil.models.published_weights import answers, create_model, gateway


@pytest.fixture
def seen(monkeypatch):
    """Whether timm was told that there is no network."""
    seen = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: seen.append(constants.HF_HUB_OFFLINE))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return seen


@pytest.mark.parametrize(
    ("pretrained", "reachable", "offline"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_the_hub_is_left_alone_where_nothing_answers(seen, monkeypatch, pretrained, reachable, offline):
    monkeypatch.setattr(published_weights, "answers", lambda host, port: reachable)
    create_model("resnet18", pretrained=pretrained)
    assert seen == [offline]
    assert constants.HF_HUB_OFFLINE is False


def test_who_works_offline_stays_offline(seen, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(published_weights, "answers", lambda host, port: pytest.fail("asked all the same"))
    create_model("resnet18", pretrained=True)
    assert seen == [True]


def test_a_server_answers_and_a_closed_port_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers("127.0.0.1", port)
    assert not answers("127.0.0.1", port)


def slow(*args, **kwargs):
    time.sleep(1)
    raise OSError("nobody")


def test_a_name_that_is_looked_up_for_ever_takes_a_few_seconds(monkeypatch):
    monkeypatch.setattr(published_weights, "SECONDS", 0.2)
    monkeypatch.setattr(socket, "create_connection", slow)
    begun = time.monotonic()
    assert not answers("hub", 443)
    assert time.monotonic() - begun < 0.9


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [
        ({}, ("hub.example", 443)),
        ({"https": "http://proxy:3128"}, ("proxy", 3128)),
        ({"https": "http://proxy"}, ("proxy", 80)),
    ],
)
def test_a_proxy_is_asked_in_place_of_the_hub(monkeypatch, proxies, expected):
    monkeypatch.setattr(published_weights, "getproxies", lambda: proxies)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    assert gateway() == expected
