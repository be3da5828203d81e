"""What an external API's error means to the client: whose fault it is, whether to come again, and what may be shown."""

from __future__ import annotations

import json
from http.client import responses as meanings
from typing import Any, Final

from ..errors import UpstreamAuthenticationError, UpstreamError, UpstreamStatusError
from ..settings import ModelEntry
from .base import ForwardedReply
from .openai_errors import RETRY_HEADERS, to_error_object

RELAYED_STATUSES: Final = frozenset({400, 409, 413, 422, 429, 503})
"""What the client can act upon. All others (404: a wrong URL, 405, 500, ...) are between this server and the API."""

MOST_ERROR_BYTES: Final = 64 * 1024
LONGEST_MESSAGE: Final = 500
MESSAGE_KEYS: Final = ("message", "error", "detail", "details", "msg", "error_message", "error_description", "errors")
SHORTEST_SECRET: Final = 6
"""Shorter values of headers are no secrets, and masking them would make holes in words."""


def read_external_error(reply: ForwardedReply, entry: ModelEntry) -> UpstreamError:
    """The error that a reply of status 400 or more stands for; reads the beginning of its body.

    The API's own words are passed on as `to_shown_line` leaves them.

    Raises:
        CallCancelledError
    """
    if reply.status in {401, 403}:
        does = "refused this server's credential" if _has_credential(entry) else "wants a credential of this server"
        return UpstreamAuthenticationError(f"The external API {does} (status {reply.status}).")
    body = _read_beginning(reply)
    words = to_shown_line(_find_words(_parse(body)), entry)
    answer = f"The external API answered {reply.status} {meanings.get(reply.status, '')}".rstrip()
    if reply.status not in RELAYED_STATUSES:
        return UpstreamError(f"{answer}: {words}" if words else f"{answer}.", code="external_api_error")
    error = to_error_object(reply.status, body)
    return UpstreamStatusError(
        words or f"{answer}.",
        upstream_status=reply.status,
        type_=error["type"],
        param=error["param"],
        code=error["code"],
        headers={name: reply.headers[name] for name in RETRY_HEADERS if name in reply.headers},
    )


def to_shown_line(words: str, entry: ModelEntry) -> str:
    """The first line, bounded, the entry's credentials masked; '' for HTML and for tracebacks."""
    line = next(iter(words.strip().splitlines()), "").strip()
    if line.startswith(("<", "Traceback ")):
        return ""
    for secret in (entry.api_key, *entry.headers.values()):
        if secret and len(secret) >= SHORTEST_SECRET:
            line = line.replace(secret, "***").replace(secret.removeprefix("Bearer "), "***")
    return "".join(filter(str.isprintable, line))[:LONGEST_MESSAGE]


def _has_credential(entry: ModelEntry) -> bool:
    names = {name.lower() for name in entry.headers}
    return bool(entry.api_key) or not names.isdisjoint({"authorization", "api-key", "x-api-key"})


def _read_beginning(reply: ForwardedReply) -> bytes:
    """A body that breaks off ends where it broke: its status has said enough."""
    body = b""
    try:
        for block in reply.blocks():
            body += block if isinstance(block, bytes) else b""
            if len(body) >= MOST_ERROR_BYTES:
                break
    except UpstreamError:
        return body
    return body


def _parse(body: bytes) -> Any:
    """The body as JSON, or as text."""
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _find_words(error: Any, levels: int = 4) -> str:
    """What an error says: a text, or the first one under a key that has it."""
    if isinstance(error, str) or not levels:
        return error if isinstance(error, str) else ""
    if isinstance(error, list):
        return _find_words(error[0], levels - 1) if error else ""
    if not isinstance(error, dict):
        return ""
    found = (_find_words(error.get(key), levels - 1) for key in MESSAGE_KEYS)
    return next(filter(None, found), "")
