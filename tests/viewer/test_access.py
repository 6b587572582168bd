"""Who gets in: paths, hosts and origins by hand."""

import pytest

from kd_mil.viewer.access import hosts, is_allowed, new_token

OURS = {"Host": "127.0.0.1:5000"}


@pytest.mark.parametrize(
    ("path", "headers", "allowed"),
    [
        ("/secret/view", OURS, True),
        ("/secret/view", {"Host": "LOCALHOST:5000", "Origin": "http://localhost:5000"}, True),
        ("/view", OURS, False),
        ("/secre/view", OURS, False),
        ("/secret2/view", OURS, False),
        ("//secret/view", OURS, False),
        ("secret/view", OURS, False),
        ("", OURS, False),
        ("/s\udce9cret/view", OURS, False),
        ("/secret/view", {}, False),
        ("/secret/view", {"Host": "evil.example:5000"}, False),
        ("/secret/view", {"Host": "127.0.0.1:5001"}, False),
        ("/secret/view", {"Host": "127.0.0.1"}, False),
        ("/secret/ws", OURS | {"Origin": "http://evil.example"}, False),
        ("/secret/ws", OURS | {"Origin": "https://127.0.0.1:5000"}, False),
        ("/secret/ws", OURS | {"Origin": "null"}, False),
    ],
)
def test_only_who_knows_the_token_and_names_this_server(path, headers, allowed):
    assert is_allowed(path, headers, "secret", 5000) is allowed


def test_tokens_differ_and_fit_into_a_path():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 and token.replace("-", "").replace("_", "").isalnum() for token in tokens)
    assert hosts(7) == {"127.0.0.1:7", "localhost:7"}
