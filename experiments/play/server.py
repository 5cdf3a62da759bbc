"""The server of the page: for this machine and its own page only, with a token.

    GET  /?token=T        the page
    GET  /api/about       the picture and the controls           (token in the header)
    POST /api/send        a Setting in JSON -> the result
    POST /api/judge       the same Setting -> the judge's map of the result
    POST /api/street      {"seed": n}: another rendered street
    POST /api/picture     the bytes of a picture file

It listens on 127.0.0.1. A request is refused unless it names this host (which prevents DNS
rebinding), comes from the same origin, and has the token.
"""

from __future__ import annotations

import hmac
import json
import secrets
import tempfile
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from torch import Tensor

from experiments.play.stage import Setting, Stage, street
from experiments.report.embedded import asset
from sqlink.data.pictures import load_picture
from sqlink.errors import ConfigError, DataError, SQLinkError

HOST = "127.0.0.1"
TOKEN_HEADER = "X-SQLink-Token"
MOST_JSON = 4096
MOST_PICTURE = 32 << 20
"""Largest size of the body of a request, in bytes."""
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """A server of one stage. url: the address to open, with the token.

    Raises ConfigError if the port is taken.
    """

    daemon_threads = True

    def __init__(self, stage: Stage, port: int = 0) -> None:
        self.stage = stage
        self.token = secrets.token_urlsafe(24)
        self.page = _page().encode()
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"--port {port}: cannot listen there: {error.strerror}: give another, or none"
            ) from error
        except OverflowError as error:
            raise ConfigError(f"--port {port} must be from 0 to 65535") from error
        own = self.server_address[1]
        self.hosts = (f"{HOST}:{own}", f"localhost:{own}")

    def warm(self) -> None:
        """Prepare the stage in a thread of its own."""
        threading.Thread(target=self.stage.warm, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self.hosts[0]}/?token={self.token}"


class RefusedError(Exception):
    """A refused request. status: HTTP status."""

    def __init__(self, status: HTTPStatus, line: str) -> None:
        super().__init__(line)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """A handler of one request."""

    server: Server
    server_version = "SQLink"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer with the page, or with the data that it starts with."""
        self._answered({"/": self._front, "/api/about": self._about})

    def do_POST(self) -> None:
        """Answer a request for a result or for another picture."""
        self._answered(
            {
                "/api/send": self._send,
                "/api/judge": self._judge,
                "/api/street": self._street,
                "/api/picture": self._picture,
            }
        )

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: one line per request would hide all other output."""

    def _answered(self, paths: Mapping[str, Callable[[], None]]) -> None:
        try:
            self._check_host()
            path = urlsplit(self.path).path
            if path not in paths:
                raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
            self._check_token(path)
            paths[path]()
        except RefusedError as error:
            self._json({"error": str(error)}, error.status)
        except SQLinkError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def _check_host(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers under its own name only")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers its own page only")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers its own page only")

    def _check_token(self, path: str) -> None:
        given = self.headers.get(TOKEN_HEADER, "")
        if path == "/":
            given = parse_qs(urlsplit(self.path).query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            line = "the token is missing or wrong: open the address that `sqlink play` printed"
            raise RefusedError(HTTPStatus.FORBIDDEN, line)

    def _front(self) -> None:
        self._write(self.server.page, "text/html; charset=utf-8", HTTPStatus.OK)

    def _about(self) -> None:
        self._json(self.server.stage.about())

    def _send(self) -> None:
        self._json(self.server.stage.send(self._setting()))

    def _judge(self) -> None:
        self._json(self.server.stage.judge(self._setting()))

    def _setting(self) -> Setting:
        try:
            return Setting.model_validate_json(self._body(MOST_JSON))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "setting"
            raise ConfigError(f"{where}: {first['msg']}") from error

    def _street(self) -> None:
        try:
            seed = json.loads(self._body(MOST_JSON))["seed"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError("a street needs its number, as seed") from error
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise ConfigError("seed must be a whole number from 0 to 2147483647")
        self._another(*street(seed))

    def _picture(self) -> None:
        body = self._body(MOST_PICTURE)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(body)
            try:
                image = load_picture(path)
            except DataError as error:
                raise DataError(str(error).replace(str(path), "the picture")) from error
        self._another(image, "your picture")

    def _another(self, image: Tensor, name: str, labels: Tensor | None = None) -> None:
        self.server.stage.show(image, name, labels)
        self._json(self.server.stage.about())
        self.server.warm()

    def _body(self, most: int) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the length is missing") from None
        if not 0 <= length <= most:
            self.close_connection = True
            line = f"more than {most} bytes are not taken"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line)
        return self.rfile.read(length)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        self._write(text.encode(), "application/json; charset=utf-8", status)

    def _write(self, content: bytes, kind: str, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def _page() -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    folder = files("experiments.play") / "assets"
    own = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("play.html", "play.css", "play.js")
    }
    return (
        Environment(autoescape=True)
        .from_string(own["play.html"])
        .render(
            styles=Markup(asset("base.css") + own["play.css"]),
            scripts=Markup("\n".join([asset("base.js"), asset("compare.js"), own["play.js"]])),
        )
    )
