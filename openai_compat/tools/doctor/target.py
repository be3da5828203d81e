"""The deployed server under test, and commands for its diagnostic model."""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from openai_compat.tools.http_probe import BaseURL, ProbeResponse, request_headers, send

from .backend import DOCTOR_MODEL

TIMEOUT: Final = 20.0
POLL_INTERVAL: Final = 0.05


class TargetError(Exception):
    """The server cannot be checked. The message is the reason."""


@dataclass(frozen=True)
class TimedEvent:
    """Times of one event in seconds, when the server sent it and when it was received, each since the request."""

    sent_at: float
    received_at: float


@dataclass(frozen=True)
class Target:
    """The server under test and the options of the command line.

    Connections must survive `idle_seconds` without data. Bodies of `body_mib` MiB must be accepted. CORS must allow
    `origin`. `reload` is a command to run during a stream of `reload_seconds`.
    """

    base_url: BaseURL
    headers: Mapping[str, str]
    idle_seconds: float = 65.0
    body_mib: int = 32
    origin: str | None = None
    reload: str | None = None
    reload_seconds: float = 15.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Target:
        """Build the target from the command line.

        Raises:
            ValueError: a header has no colon, or the URL is invalid.
        """
        return cls(
            BaseURL.parse(arguments.url),
            request_headers(arguments.api_key, arguments.header),
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
        """Send a request with the target's headers."""
        return send(self.base_url, method, path, headers={**self.headers, **headers}, body=body, timeout=timeout)

    def run_command(
        self, headers: Mapping[str, str] = {}, timeout: float = TIMEOUT, *, stream: bool = True, **command: Any
    ) -> ProbeResponse:
        """Send a command to the diagnostic model and return the response."""
        return self.send("POST", "chat/completions", to_body(command, stream=stream), headers, timeout)

    @contextmanager
    def open_call(self, timeout: float, *, stream: bool, **command: Any) -> Iterator[http.client.HTTPConnection]:
        """Send a command and yield the connection without reading from it. Disconnect at the end of the block."""
        connection = self.base_url.connect(timeout)
        try:
            connection.request(
                "POST", f"{self.base_url.path}/chat/completions", to_body(command, stream=stream), dict(self.headers)
            )
            yield connection
        finally:
            connection.close()

    def disconnect_time(self, call_id: str, timeout: float) -> float | None:
        """Return after how many seconds of a call the server detected the disconnect, None if it did not."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            response = self.run_command(stream=False, query=call_id, about=call_id)
            answer = json.loads(response.json()["choices"][0]["message"]["content"])
            seconds = answer["disconnected_at"] if "disconnected_at" in answer else answer["left_at"]
            if seconds is not None:
                return float(seconds)
            time.sleep(POLL_INTERVAL)
        return None


def to_body(command: Mapping[str, Any], *, stream: bool) -> bytes:
    """Return the body of a chat with a command for the diagnostic model."""
    message = {"role": "user", "content": json.dumps(dict(command))}
    return json.dumps({"model": DOCTOR_MODEL, "stream": stream, "messages": [message]}).encode()


def parse_events(response: ProbeResponse) -> list[TimedEvent]:
    """Return the times of each event of a streamed response. An event is received with its last byte."""
    events = []
    end = 0
    for block in response.body.split(b"\n\n"):
        end += len(block) + 2
        sent_at = _sent_at(block)
        if sent_at is not None:
            received_at = next(
                seconds for seconds, total in response.chunk_times if total >= min(end, len(response.body))
            )
            events.append(TimedEvent(sent_at, received_at))
    return events


def _sent_at(block: bytes) -> float | None:
    data = block.strip()
    if not data.startswith(b"data: {"):
        return None
    choices = json.loads(data[6:]).get("choices") or [{}]
    content = choices[0].get("delta", {}).get("content")
    return float(json.loads(content)["at"]) if content else None
