"""HTTP client of the diagnostic tools. It never retries, follows redirects or decodes a body."""

from __future__ import annotations

import http.client
import json
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

READ_BYTES: Final = 65_536


@dataclass(frozen=True)
class BaseURL:
    """Base URL of an API. `path` is its path up to and including `/v1`."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> BaseURL:
        """Parse a `base_url` as clients take it. The path defaults to `/v1`.

        Raises:
            ValueError: `url` is not an HTTP URL.
        """
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("it must be a URL such as http://localhost:8000/v1")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/") or "/v1")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection whose socket operations time out after `timeout` seconds each."""
        if self.scheme == "https":
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)


@dataclass
class ProbeResponse:
    """One response. The names in `headers` are in lower case.

    `chunk_times` has an entry for each read of the body, the seconds since the request and the bytes read by then.
    `timed_out` is True if the body had not ended at the deadline, `is_truncated` if the connection broke in the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    chunk_times: list[tuple[float, int]] = field(default_factory=list)
    is_truncated: bool = False
    timed_out: bool = False

    @property
    def text(self) -> str:
        """The body decoded as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def request_headers(api_key: str | None, options: Sequence[str]) -> dict[str, str]:
    """Return the headers of every request from the command line's `--api-key` and `--header` options.

    Raises:
        ValueError: an option is not of the form NAME:VALUE.
    """
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    for option in options:
        name, colon, value = option.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"--header needs NAME:VALUE, not {option!r}")
        headers[name.strip()] = value.strip()
    return headers


def send(
    base_url: BaseURL,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    timeout: float,
    total_timeout: float = math.inf,
) -> ProbeResponse:
    """Send one request on a new connection and read its response.

    `path` is relative to the base URL unless it begins with `/`. `timeout` limits each socket operation and
    `total_timeout` the response, both in seconds. A body that lasts longer is returned as far as it was read.

    Raises:
        OSError: connecting failed, or there was no response in time.
        http.client.HTTPException: the response is not HTTP.
    """
    connection = base_url.connect(timeout)
    started = time.monotonic()
    try:
        target = path if path.startswith("/") else f"{base_url.path}/{path}"
        connection.request(method, target, body, dict(headers))
        return read_response(connection, started, started + total_timeout)
    finally:
        connection.close()


def read_response(
    connection: http.client.HTTPConnection, started: float = 0.0, deadline: float = math.inf
) -> ProbeResponse:
    """Read a response as it arrives, up to `deadline`. Both times are of `time.monotonic`."""
    response = connection.getresponse()
    names = {name.lower() for name in response.headers}
    probe = ProbeResponse(response.status, {name: ", ".join(response.headers.get_all(name, [])) for name in names})
    chunks = []
    total = 0
    try:
        while chunk := response.read1(READ_BYTES):
            chunks.append(chunk)
            total += len(chunk)
            now = time.monotonic()
            probe.chunk_times.append((now - started, total))
            if now > deadline:
                probe.timed_out = True
                break
    except (http.client.IncompleteRead, ConnectionError):
        probe.is_truncated = True
    probe.body = b"".join(chunks)
    return probe
