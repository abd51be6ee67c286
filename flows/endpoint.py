"""A small HTTP endpoint for those who have no Prefect client: a model team's CI posts "base X is out".

Requests are signed as Standard Webhooks are (https://www.standardwebhooks.com): headers `webhook-id`,
`webhook-timestamp` (seconds since 1970) and `webhook-signature`, `v1,` and the base64 of HMAC-SHA-256 over
`id.timestamp.body`. A secret that begins with `whsec_` holds the key in base64, any other is the key. A request that is
older than five minutes, or whose id was seen, is refused.

A post changes nothing but the mark of what was announced, and wakes who looks: what is done is up to the plan.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.events import announce_base, outbox_of
from flows.factory import Factory
from infra.errors import FactoryError
from infra.sources import parse_source

TOLERANCE_SECONDS = 300.0
_LONGEST_BODY = 1 << 14
_SHORTEST_KEY = 24
_PREFIX = "whsec_"
_SOCKET_SECONDS = 10.0
_ID = re.compile(r"[\w.-]{8,128}")


class Post(BaseModel):
    """What may be posted: another base model is out at `base`, or, without one, that something has changed."""

    model_config = ConfigDict(extra="forbid")

    base: str | None = None


class Refused(Exception):
    """A request that is not taken: an HTTP status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def key_of(secret: str) -> bytes:
    """The key that a secret holds: after `whsec_` in base64, as libraries for Standard Webhooks have it, else as it is.

    Raises:
        FactoryError: it is too short, or no base64.
    """
    try:
        coded = secret.startswith(_PREFIX)
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True) if coded else secret.encode()
    except binascii.Error:
        key = b""
    if len(key) < _SHORTEST_KEY:
        told = f"{_SHORTEST_KEY} characters or more, or to {_PREFIX} and so many bytes in base64"
        raise FactoryError(f"trigger_secret: set FACTORY_TRIGGER_SECRET to {told}")
    return key


def sign(secret: str, request: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a request."""
    signed = f"{request}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


def take(factory: Factory, headers: Mapping[str, str], body: bytes) -> None:
    """Check a request and note what it announces.

    Raises:
        Refused: it is not signed with the secret, too old, seen before, or says nothing that is known.
    """
    request, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(request) or not timestamp.isdecimal() or len(timestamp) > 12:
        raise Refused(400, "give webhook-id (8 to 128 letters, digits, - _ .) and webhook-timestamp (seconds)")
    expected = sign(factory.settings.trigger_secret, request, int(timestamp), body)
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        raise Refused(401, "webhook-signature is not that of this request with our secret")
    now = time.time()
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise Refused(401, "webhook-timestamp is more than five minutes off; check both clocks")
    try:
        post = Post.model_validate_json(body)
    except ValidationError as error:
        raise Refused(422, f'{error.errors()[0]["msg"]}; post {{}} or {{"base": SOURCE}}') from None
    base = _checked(factory, post.base) if post.base is not None else None
    outbox = outbox_of(factory)
    if not outbox.is_new_request(request, now, 2 * TOLERANCE_SECONDS):
        raise Refused(409, f"webhook-id {request} was taken already")
    if base is not None:
        try:
            announce_base(factory, base)
        except FactoryError:
            outbox.forget_request(request)  # whoever sent it will send it again
            raise


def _checked(factory: Factory, source: str) -> str:
    """A source that somebody elsewhere may name: a remote one, or a folder that settings name, too."""
    try:
        kind, _, _ = parse_source(source)
    except FactoryError as error:
        raise Refused(422, str(error)) from None
    if kind == "folder" and source not in (factory.settings.base, *factory.settings.watched_bases):
        raise Refused(422, "a folder must be named in `watched_bases` of the factory's settings")
    return source


@contextmanager
def listening(opened: Callable[[], Factory], host: str, port: int, wake: Callable[[], None]) -> Iterator[int]:
    """Serve `POST /` and `GET /health` while the block runs; gives the port. `wake` is called for each post taken.

    Raises:
        FactoryError: no secret is set, or one that is none; the address is in use.
    """
    key_of(opened().settings.trigger_secret)

    class Handler(_Handler):
        factory = staticmethod(opened)
        woken = staticmethod(wake)

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise FactoryError(f"{host}:{port}: {error.strerror}; choose another --listen address") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    factory: Callable[[], Factory]
    woken: Callable[[], None]
    timeout = _SOCKET_SECONDS
    server_version, sys_version = "factory", ""

    def do_GET(self) -> None:
        found = self.path == "/health"
        self._answer(200 if found else 404, {"status": "ok"} if found else {"error": "POST / or GET /health"})

    def do_POST(self) -> None:
        try:
            length = self.headers.get("content-length", "")
            if self.path != "/" or not length.isdecimal() or int(length) > _LONGEST_BODY:
                raise Refused(404 if self.path != "/" else 413, f"POST / takes up to {_LONGEST_BODY} bytes")
            headers = {name.lower(): value for name, value in self.headers.items()}
            take(self.factory(), headers, self.rfile.read(int(length)))
        except Refused as refused:
            self._answer(refused.status, {"error": str(refused)})
            return
        except FactoryError as error:
            self._answer(503, {"error": str(error)})
            return
        self.woken()
        self._answer(202, {"status": "taken"})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was taken is an event."""

    def _answer(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
