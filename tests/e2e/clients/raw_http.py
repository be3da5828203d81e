"""HTTP requests with the standard library, for bytes and headers that the official clients do not show."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 20


@dataclass(frozen=True)
class RawAnswer:
    """A complete response with header names in lower case and the body without chunked framing."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def exchange(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> RawAnswer:
    """Send a request with the headers of an OpenAI client, and return the response.

    Raises:
        http.client.IncompleteRead: the response is truncated.
    """
    sent = {"authorization": "Bearer sk-of-the-caller", **(headers or {})}
    if body is not None:
        sent.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=TIMEOUT)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(response.status, received, response.read())
    finally:
        connection.close()


def post(url: str, path: str, value: Any, headers: Mapping[str, str] | None = None) -> RawAnswer:
    """Send a JSON body, and return the response."""
    return exchange(url, "POST", path, json.dumps(value, ensure_ascii=False).encode(), headers)
