"""Recognition of an upstream's event stream by its bytes, because servers and proxies change the content type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT, Heartbeat

from .sse import BYTE_ORDER_MARK

EVENT_STREAM: Final = "text/event-stream"
JSON: Final = "application/json"
EVENT_PREFIXES: Final = (b"data:", b"event:", b"error:", b"id:", b"retry:", b":")
"""The beginnings of an event stream's lines. JSON, HTML and error texts begin with none of them."""
CARRIES_CONTENT: Final = re.compile(
    rb'"(?:content|text|arguments|reasoning\w*|thinking|refusal|input|partial_json|delta)"\s*:\s*"'
    rb'|"(?:content|tool_calls|reasoning_details)"\s*:\s*\[(?!\s*\])'
    rb'|"(?:choices|delta|message)"\s*:\s*(?:\[\s*)?\{[^{}]*$'
)
"""A value in the bytes of a broken event that was begun, or an object that may have had one where the event was cut.

The answer would be altered without the event.
"""
NO_CONTENT: Final = frozenset({204, 205})
"""Statuses whose responses have no content. Clients ignore a body that follows them."""
MAX_WHITE_SPACE_BYTES: Final = 65_536
"""White space before a body, which some servers send to keep the connection alive."""
_LONGEST_PREFIX: Final = max(map(len, EVENT_PREFIXES))
_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_ASCII_COMPATIBLE: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"})


class PeekedResponse(UpstreamResponse):
    """A response whose first bytes have been read."""

    def __init__(self, response: UpstreamResponse) -> None:
        self.status, self.headers, self.max_bytes = response.status, response.headers, response.max_bytes
        self._response = response
        self._blocks = response.blocks()
        self.prefix = b""
        """The first bytes, without white space and byte order mark before them."""
        self._peeked: list[bytes] = []
        self._peek()

    def _peek(self) -> None:
        """Read until the beginning is known.

        Raises:
            UpstreamInvalidResponseError: The body begins with more than `MAX_WHITE_SPACE_BYTES` of white space.
        """
        count = 0
        for block in self._blocks:
            if block is HEARTBEAT:
                continue
            self._peeked.append(block)
            self.prefix = (self.prefix + block).removeprefix(BYTE_ORDER_MARK).lstrip()
            if len(self.prefix) >= _LONGEST_PREFIX:
                return
            count += len(block)
            if count > MAX_WHITE_SPACE_BYTES:
                raise UpstreamInvalidResponseError("The upstream's answer begins with too much white space.")

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        yield from self._peeked
        yield from self._blocks

    def redact(self, data: bytes) -> bytes:
        return self._response.redact(data)

    def close(self) -> None:
        self._response.close()

    def limit_remaining(self, seconds: float) -> None:
        self._response.limit_remaining(seconds)

    def release(self) -> None:
        self._response.release()


def check_status(status: int) -> None:
    """Raise `UpstreamInvalidResponseError` for a status that no answer has, below 400 or above 599.

    These are a redirect, a status without content, and a number that is no status of HTTP.
    """
    if status == 200:
        return
    if status in NO_CONTENT:
        raise UpstreamInvalidResponseError(f"The upstream answered with status {status}, which has no content.")
    if 300 <= status < 400:
        raise UpstreamInvalidResponseError(
            "The upstream answered with a redirect, which is not followed: correct its base_url."
        )
    if status >= 600:
        raise UpstreamInvalidResponseError(f"The upstream answered with the invalid status {status}.")


def describe_non_json(body: bytes) -> str:
    """Return the message for a body that is not JSON."""
    beginning = body[:200].lstrip().lower()
    if not beginning:
        return "The upstream's answer is empty."
    if beginning.startswith(b"<"):
        return "The upstream answered with a page of HTML: correct its base_url."
    return "The upstream's answer is not a complete JSON object."


def detect_events(response: UpstreamResponse, *, is_streamed: bool) -> tuple[UpstreamResponse, bool]:
    """Return the response to read from, and True if its body is an event stream.

    A response that names no event stream is judged by its first bytes. Only JSON in answer to a call that is not
    streamed is taken for what it says.

    Raises:
        UpstreamInvalidResponseError: The body is in an encoding other than UTF-8. Errors of reading the response.
    """
    content_type = response.headers.get("content-type", "")
    if content_type == (EVENT_STREAM if is_streamed else JSON):
        return response, is_streamed
    content_type = content_type.lower()
    if (found := _CHARSET.search(content_type)) and found[1] not in _ASCII_COMPATIBLE:
        raise UpstreamInvalidResponseError(f"The upstream's answer is not in UTF-8 but in {found[1][:40]}.")
    if content_type.startswith(EVENT_STREAM):
        return response, True
    if content_type.startswith(JSON) and not is_streamed:
        return response, False
    peeked = PeekedResponse(response)
    return peeked, peeked.prefix.startswith(EVENT_PREFIXES)
