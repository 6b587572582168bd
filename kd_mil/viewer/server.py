"""The server: Bokeh's documents and tiles of slides, for whoever knows the address."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.resources import Resources
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.settings import settings
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.routing import Router
from tornado.web import Application as Routes
from tornado.web import HTTPError, RequestHandler

from kd_mil.core.errors import UserError
from kd_mil.viewer.access import ADDRESS, hosts, is_allowed, new_token
from kd_mil.viewer.content import Content
from kd_mil.viewer.frame import Frame, deep_zoom_level
from kd_mil.viewer.page import fill

READERS = 4
"""Threads that read tiles."""
KEPT_SECONDS = 3600
"""For which a browser may keep a tile: slides do not change while they are looked at."""

NOTHING = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)
"""A transparent pixel."""


class TileHandler(RequestHandler):
    """Tiles by number of the slide, zoom, column and row."""

    def initialize(self, content: Content, threads: ThreadPoolExecutor) -> None:
        self.content, self.threads = content, threads

    async def get(self, *place: str) -> None:
        """One tile; where there is none a transparent one, for Bokeh asks for all that a view holds, and again."""
        number, zoom, column, row = map(int, place)
        try:
            read = partial(tile, self.content, number, zoom, column, row)
            found = await asyncio.get_running_loop().run_in_executor(self.threads, read)
        except UserError as error:
            logging.getLogger(__name__).warning("%s", error)
            found = None
        if found is None:
            found = NOTHING
        self.set_header("Content-Type", "image/jpeg" if found is not NOTHING else "image/gif")
        self.set_header("Cache-Control", f"private, max-age={KEPT_SECONDS}")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.write(found)


def tile(content: Content, number: int, zoom: int, column: int, row: int) -> bytes | None:
    """A tile of the slide with that number; None where there is none."""
    names = content.run.names
    panel = content.run.panel(names[number]) if number < len(names) else None
    if panel is None:
        return None
    background = content.slides.background(panel)
    most = int(Frame(1.0).pyramid(background)["max_zoom"])
    return background.zoom.tile(deep_zoom_level(background.zoom.levels, zoom, most), column, row)


class Refusal(RequestHandler):
    """What is not allowed is not there."""

    def prepare(self) -> None:
        raise HTTPError(403)


class Guard(Router):
    """Lets through to Bokeh what is allowed, whatever it asks for: pages, scripts, tiles, and sockets."""

    def __init__(self, application: Routes, token: str, port: int) -> None:
        self.application, self.token, self.port = application, token, port
        self.refusal = Routes([(r".*", Refusal)], log_function=lambda _: None)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        headers = {name: request.headers[name] for name in ("Host", "Origin") if name in request.headers}
        allowed = is_allowed(request.path, headers, self.token, self.port)
        return (self.application if allowed else self.refusal).find_handler(request, **kwargs)


class Viewer:
    """A server that listens; `url` is the only way in.

    Args:
        content: what it shows.
        port: where it listens on 127.0.0.1; 0 = a free one.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, content: Content, port: int = 0) -> None:
        settings.resources = "server"  # never from a CDN, whatever the environment says
        try:
            sockets = bind_sockets(port, ADDRESS)
        except OSError as error:
            raise UserError(f"port={port}: {error.strerror}; choose another, or port=0 for a free one") from error
        self.port, self.token = sockets[0].getsockname()[1], new_token()
        self.url = f"http://{ADDRESS}:{self.port}/{self.token}/view"
        application = _application(lambda document: fill(document, content, f"/{self.token}"), content, self)
        http = HTTPServer(Guard(application, self.token, self.port))
        http.add_sockets(sockets)
        self._server = BaseServer(IOLoop.current(), application, http)

    def run(self) -> None:
        """Serve until Ctrl-C."""
        self._server.run_until_shutdown()


class Pages(BokehTornado):
    """Documents without the two thirds of Bokeh's scripts that the page does not use: MathJax, tables, WebGL."""

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        found = super().resources(absolute_url)
        found.components = ["bokeh", "bokeh-widgets"]
        return found


def _application(page: Callable[[Document], None], content: Content, viewer: Viewer) -> BokehTornado:
    threads = ThreadPoolExecutor(READERS)
    tiles = (r"/tile/(\d{1,9})/(\d{1,3})/(\d{1,9})/(\d{1,9})", TileHandler, {"content": content, "threads": threads})
    return Pages(
        {"/view": Application(FunctionHandler(page))},
        prefix=f"/{viewer.token}",
        extra_websocket_origins=sorted(hosts(viewer.port)),
        extra_patterns=[tiles],
        secret_key=secrets.token_bytes(32),
        sign_sessions=True,
        use_index=False,
    )
