"""Who may ask the viewer for something: whoever knows its address, by the name of this machine alone.

A web page from elsewhere can send a browser to 127.0.0.1, by that number or, with DNS rebinding, by a name of its own.
So each path begins with a secret, and the headers `Host` and, where there is one, `Origin` must name this server.
"""

import hmac
import secrets
from urllib.parse import urlsplit

ADDRESS = "127.0.0.1"


def new_token() -> str:
    """A secret that nobody guesses: 192 bits, fit for a path."""
    return secrets.token_urlsafe(24)


def hosts(port: int) -> set[str]:
    """The names by which this server may be asked."""
    return {f"{ADDRESS}:{port}", f"localhost:{port}"}


def is_allowed(path: str, headers: dict[str, str], token: str, port: int) -> bool:
    """Whether a request is for whoever knows the token, and for this server.

    Args:
        path: of the request, without host and query.
        headers: `Host`, and `Origin` where there is one.
        token: of this server.
        port: where it listens.
    """
    origin = headers.get("Origin")
    named = headers.get("Host", "").lower() in hosts(port)
    ours = origin is None or (urlsplit(origin).scheme, urlsplit(origin).netloc.lower()) in {
        ("http", host) for host in hosts(port)
    }
    given = path.split("/")[1] if path.startswith("/") else ""
    known = hmac.compare_digest(given.encode(errors="replace"), token.encode())
    return known and named and ours
