"""What an external API's error means to the client: whose fault it is, whether to come again, and what may be shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import responses as meanings
from typing import Any, Final
from urllib.parse import quote

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_errors import retry_headers, to_status_error
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamError
from openai_compat.core.settings import ModelConfig

AUTH_STATUSES: Final = frozenset({401, 403})
"""These judge the credential that this server holds: the client can do nothing about it."""

RELAYED_STATUSES: Final = frozenset({400, 409, 413, 422, 429, 503})
"""What the client can act upon. All others (404: a wrong URL, 405, 500, ...) are between this server and the API."""

MAX_ERROR_BYTES: Final = 64 * 1024
MAX_MESSAGE_CHARS: Final = 500
MESSAGE_KEYS: Final = ("message", "error", "detail", "details", "msg", "error_message", "error_description", "errors")
MIN_SECRET_CHARS: Final = 6
"""Shorter values are no secrets, and masking them would make holes in words."""


def to_undeclared_error(entry: ModelConfig, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
    """The error that a reply of status 400 or more stands for, where its row does not say."""
    answered = f"answered {status} {meanings.get(status, '')}".rstrip()
    return to_external_error(entry, status, body, retry_headers(headers), answered)


def to_external_error(
    entry: ModelConfig,
    status: int | None,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    does: str = "reported an error",
) -> UpstreamError:
    """What the client is told of the API's error, be its `status` that of the reply or one named within a reply of
    status 200. The API's own words are passed on as `redact_message` leaves them.
    """
    if status in AUTH_STATUSES:
        refuses = "refused this server's credential" if _has_credential(entry) else "wants a credential of this server"
        return UpstreamAuthenticationError(f"The external API {refuses} (status {status}).")
    words = redact_message(find_message(parse_error(body)), entry)
    if status not in RELAYED_STATUSES:
        told = f"The external API {does}: {words}" if words else f"The external API {does}."
        return UpstreamError(told, code="external_api_error")
    return to_status_error(status, body, headers, words or f"The external API {does}.")


def redact_message(words: str, entry: ModelConfig) -> str:
    """The first line, bounded, the entry's secrets masked; '' for HTML and for tracebacks."""
    line = next(iter(words.strip().splitlines()), "").strip()
    if line.startswith(("<", "Traceback ")):
        return ""
    for secret in entry.secrets():
        if len(secret) >= MIN_SECRET_CHARS:
            line = line.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return "".join(filter(str.isprintable, line))[:MAX_MESSAGE_CHARS]


def _has_credential(entry: ModelConfig) -> bool:
    names = {name.lower() for name in entry.headers}
    return bool(entry.api_key) or not names.isdisjoint({"authorization", "api-key", "x-api-key"})


def read_beginning(reply: UpstreamResponse) -> bytes:
    """The beginning of an error's body; one that breaks off ends where it broke: its status has said enough.

    Raises:
        CallCancelledError
    """
    body = b""
    try:
        for block in reply.blocks():
            body += block if isinstance(block, bytes) else b""
            if len(body) >= MAX_ERROR_BYTES:
                break
    except UpstreamError:
        return body
    return body


def parse_error(body: bytes) -> Any:
    """The body as JSON, or as text."""
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def find_message(error: Any, levels: int = 4) -> str:
    """What an error says: a text, or the first one under a key that has it."""
    if isinstance(error, str) or not levels:
        return error if isinstance(error, str) else ""
    if isinstance(error, list):
        return find_message(error[0], levels - 1) if error else ""
    if not isinstance(error, dict):
        return ""
    found = (find_message(error.get(key), levels - 1) for key in MESSAGE_KEYS)
    return next(filter(None, found), "")
