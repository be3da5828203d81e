"""One HTTP exchange with the standard library, for what the official clients do not show: bytes and header names."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 20


@dataclass(frozen=True)
class RawAnswer:
    """A whole answer; header names in lower case, the body without its framing."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def exchange(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> RawAnswer:
    """The answer to one request; raises where it is cut.

    Headers that a client of OpenAI sends are sent, unless others are given.
    """
    sent = {"authorization": "Bearer sk-of-the-caller", **(headers or {})}
    if body is not None:
        sent.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=SECONDS)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(response.status, found, response.read())
    finally:
        connection.close()


def post(url: str, path: str, value: Any, headers: Mapping[str, str] | None = None) -> RawAnswer:
    """The answer to a JSON body."""
    return exchange(url, "POST", path, json.dumps(value, ensure_ascii=False).encode(), headers)
