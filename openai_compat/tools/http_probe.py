"""One request and what came back, as plainly as it can be had: nothing is retried, followed, or decoded unasked."""

from __future__ import annotations

import http.client
import json
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

READ_BYTES: Final = 65_536


@dataclass(frozen=True)
class Address:
    """Where requests go: the API's root, up to and with its `/v1`."""

    scheme: str
    host: str
    port: int
    root: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Of a base_url; `/v1` is added to one that has no path.

        Raises:
            ValueError: it is no URL of HTTP.
        """
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("it must be a URL such as http://localhost:8000/v1")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/") or "/v1")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.root}"

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        if self.scheme == "https":
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)


@dataclass
class ProbeResponse:
    """A response: `headers` by their names in lower case, `arrivals` when each block of the body came, in seconds since
    the request, and how many bytes there were by then. `is_endless`: there was more to come when the time was over.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    is_cut: bool = False
    is_endless: bool = False

    @property
    def text(self) -> str:
        """The body, which must be UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def send(
    address: Address,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    timeout: float,
    longest: float = math.inf,
) -> ProbeResponse:
    """The answer to one request on a connection of its own. `path` is below the root, unless it begins with `/`.

    `timeout` is for each wait, `longest` for the whole answer, in seconds.

    Raises:
        OSError: no connection, no answer, or none in time. http.client.HTTPException: it is no HTTP.
    """
    connection = address.connect(timeout)
    began = time.monotonic()
    try:
        target = path if path.startswith("/") else f"{address.root}/{path}"
        connection.request(method, target, body, dict(headers))
        return read_answer(connection, began, began + longest)
    finally:
        connection.close()


def read_answer(connection: http.client.HTTPConnection, began: float = 0.0, until: float = math.inf) -> ProbeResponse:
    """The answer to what was sent, block by block as it comes: `read1` returns at every arrival. What comes after
    `until`, a time of `time.monotonic`, is left unread.
    """
    response = connection.getresponse()
    names = {name.lower() for name in response.headers}
    answer = ProbeResponse(response.status, {name: ", ".join(response.headers.get_all(name, [])) for name in names})
    blocks = []
    total = 0
    try:
        while block := response.read1(READ_BYTES):
            blocks.append(block)
            total += len(block)
            now = time.monotonic()
            answer.arrivals.append((now - began, total))
            if now > until:
                answer.is_endless = True
                break
    except (http.client.IncompleteRead, ConnectionError):
        answer.is_cut = True
    answer.body = b"".join(blocks)
    return answer
