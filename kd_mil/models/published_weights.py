"""Networks of timm with their published weights, and a quick answer where the hub is out of reach."""

import socket
import threading
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants
from torch import nn

SECONDS = 3.0
"""To wait for a first answer of the network."""


def create_model(name: str, pretrained: bool, **options: Any) -> nn.Module:
    """`timm.create_model`; without a network, weights that were fetched before are used, and others fail at once.

    The hub's own client asks again and again for minutes.

    Raises:
        OSError, RuntimeError, ValueError: no such model, or weights out of reach.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (pretrained and not answers(*gateway()))
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    finally:
        constants.HF_HUB_OFFLINE = before


def gateway() -> tuple[str, int]:
    """Host and port that a connection to the hub goes to: the hub's, or a proxy's."""
    address = urlsplit(getproxies().get("https") or constants.ENDPOINT)
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


def answers(host: str, port: int) -> bool:
    """Whether anything answers there within `SECONDS`; in a thread, since looking up a name has no time limit."""
    found = []

    def connect() -> None:
        try:
            with socket.create_connection((host, port), timeout=SECONDS):
                found.append(True)
        except OSError:
            return

    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(found)
