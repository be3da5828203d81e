"""The deployed server: how it is reached, and what the doctor's model on it is told to do."""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.tools.http_probe import Address, ProbeResponse, send

from .backend import DOCTOR_MODEL

TIMEOUT: Final = 20.0


class TargetError(Exception):
    """Nothing can be examined, and why."""


@dataclass(frozen=True)
class TimedEvent:
    """One event of the doctor's model: when it was said, by the server's clock, and when it came, both in seconds."""

    said: float
    came: float


@dataclass(frozen=True)
class Target:
    """`silence`, `body`, `origin` and `reload` are what the command line asks to be checked."""

    address: Address
    headers: Mapping[str, str]
    silence: float = 65.0
    body: int = 32
    origin: str | None = None
    reload: str | None = None
    reload_seconds: float = 15.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Target:
        """Raises ValueError for a URL or a header that is none."""
        headers = {"Content-Type": "application/json"}
        if arguments.api_key:
            headers["Authorization"] = f"Bearer {arguments.api_key}"
        for header in arguments.header:
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise ValueError(f"--header needs NAME:VALUE, not {header!r}")
            headers[name.strip()] = value.strip()
        return cls(
            Address.parse(arguments.url),
            headers,
            arguments.silence,
            arguments.body,
            arguments.origin,
            arguments.reload,
            arguments.reload_seconds,
        )

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
        timeout: float = TIMEOUT,
    ) -> ProbeResponse:
        return send(self.address, method, path, headers={**self.headers, **headers}, body=body, timeout=timeout)

    def order(
        self, headers: Mapping[str, str] = {}, timeout: float = TIMEOUT, *, stream: bool = True, **order: Any
    ) -> ProbeResponse:
        """What comes of an order to the doctor's model."""
        return self.send("POST", "chat/completions", to_body(order, stream=stream), headers, timeout)

    @contextmanager
    def waiting(self, timeout: float, *, stream: bool, **order: Any) -> Iterator[http.client.HTTPConnection]:
        """A connection on which an order was sent, and from which nothing was read. It ends as the client leaves."""
        connection = self.address.connect(timeout)
        try:
            connection.request(
                "POST", f"{self.address.root}/chat/completions", to_body(order, stream=stream), dict(self.headers)
            )
            yield connection
        finally:
            connection.close()

    def left_at(self, name: str, within: float) -> float | None:
        """When, in seconds from its beginning, the call of that name was seen to be left; None if it was not."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            answer = self.order(stream=False, about=name)
            seconds = json.loads(answer.json()["choices"][0]["message"]["content"])["left_at"]
            if seconds is not None:
                return float(seconds)
            time.sleep(0.05)
        return None


def to_body(order: Mapping[str, Any], *, stream: bool) -> bytes:
    """A chat that gives an order."""
    message = {"role": "user", "content": json.dumps(dict(order))}
    return json.dumps({"model": DOCTOR_MODEL, "stream": stream, "messages": [message]}).encode()


def parse_events(answer: ProbeResponse) -> list[TimedEvent]:
    """The words of a streamed answer, each with the time at which its last byte came."""
    words = []
    end = 0
    for event in answer.body.split(b"\n\n"):
        end += len(event) + 2
        said = _said(event)
        if said is not None:
            came = next(seconds for seconds, total in answer.arrivals if total >= min(end, len(answer.body)))
            words.append(TimedEvent(said, came))
    return words


def _said(event: bytes) -> float | None:
    data = event.strip()
    if not data.startswith(b"data: {"):
        return None
    choices = json.loads(data[6:]).get("choices") or [{}]
    content = choices[0].get("delta", {}).get("content")
    return float(json.loads(content)["at"]) if content else None
