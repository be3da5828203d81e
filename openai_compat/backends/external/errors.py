"""Mapping of an external API's errors to exceptions, with redacted messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import responses
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_errors import retry_headers, strip_event, to_status_error
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamError
from openai_compat.core.redaction import Redactor
from openai_compat.core.settings import ModelConfig

AUTH_STATUSES: Final = frozenset({401, 403})
"""Statuses that concern this server's credential, which the client cannot change."""

RELAYED_STATUSES: Final = frozenset({400, 409, 413, 422, 429, 503})
"""Statuses that the client can act upon. The others (404 for a wrong URL, 405, 500, ...) concern this server only."""

MAX_ERROR_BYTES: Final = 64 * 1024
MAX_MESSAGE_CHARS: Final = 500
MESSAGE_KEYS: Final = ("message", "error", "detail", "details", "msg", "error_message", "error_description", "errors")


def to_undeclared_error(entry: ModelConfig, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
    """Return the exception for a reply of status 400 or more whose errors are not declared."""
    event = f"answered {status} {responses.get(status, '')}".rstrip()
    return to_external_error(entry, status, body, retry_headers(headers), event)


def to_external_error(
    entry: ModelConfig,
    status: int | None,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    event: str = "reported an error",
) -> UpstreamError:
    """Return the exception for an error of the API, with the API's message as `redact_message` returns it.

    `status` is that of the reply, or the one that an error in a reply of status 200 names. `event` describes the error
    in a few words.
    """
    if status in AUTH_STATUSES:
        problem = "refused this server's credential" if _has_credential(entry) else "requires a credential"
        return UpstreamAuthenticationError(f"The external API {problem} (status {status}).")
    message = redact_message(find_message(parse_error(body)), entry)
    if status not in RELAYED_STATUSES:
        text = f"The external API {event}: {message}" if message else f"The external API {event}."
        return UpstreamError(text, code="external_api_error")
    return to_status_error(status, body, headers, message or f"The external API {event}.")


def redact_message(message: str, entry: ModelConfig) -> str:
    """Return the first line, shortened, with the model config's secrets masked. HTML and tracebacks become ""."""
    line = next(iter(message.strip().splitlines()), "").strip()
    if line.startswith(("<", "Traceback ")):
        return ""
    line = Redactor(entry.secrets()).mask(line)
    return "".join(filter(str.isprintable, line))[:MAX_MESSAGE_CHARS]


def _has_credential(entry: ModelConfig) -> bool:
    names = {name.lower() for name in entry.headers}
    return bool(entry.api_key) or not names.isdisjoint({"authorization", "api-key", "x-api-key"})


def read_error_body(reply: UpstreamResponse) -> bytes:
    """Return the beginning of an error's body, or what arrived of it if the connection broke.

    Raises:
        CallCancelledError: the client disconnected.
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
    """Return the body as JSON, or as text if it is not JSON."""
    text = strip_event(body).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def find_message(error: Any, levels: int = 4) -> str:
    """Return the message of an error, which is a text or the first one found under `MESSAGE_KEYS`."""
    if isinstance(error, str) or not levels:
        return error if isinstance(error, str) else ""
    if isinstance(error, list):
        return find_message(error[0], levels - 1) if error else ""
    if not isinstance(error, dict):
        return ""
    found = (find_message(error.get(key), levels - 1) for key in MESSAGE_KEYS)
    return next(filter(None, found), "")
