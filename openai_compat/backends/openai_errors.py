"""An upstream's error in whatever shape it has, told in OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UpstreamStatusError, to_envelope
from .base import ForwardedReply

RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
MOST_WORDS = 1000
"""Characters of an upstream's own words that are passed on."""

# status -> (type, code) for an upstream that gives none (source: the error codes of OpenAI's documentation)
_BY_STATUS: Mapping[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


def read_error(reply: ForwardedReply) -> UpstreamStatusError:
    """The error that a reply of status 400 or more stands for; reads the body."""
    error = to_error_object(reply.status, reply.read())
    headers = {name: reply.headers[name] for name in RETRY_HEADERS if name in reply.headers}
    return UpstreamStatusError(
        error["message"],
        upstream_status=reply.status,
        type_=error["type"],
        param=error["param"],
        code=error["code"],
        headers=headers,
    )


def to_envelope_bytes(status: int, body: bytes) -> bytes:
    """`body` itself where it is OpenAI's envelope to the letter, else the same error in that envelope."""
    parsed = _parse(body)
    if isinstance(parsed, Mapping) and _is_exact(parsed.get("error")):
        return body
    return json.dumps({"error": to_error_object(status, body)}, ensure_ascii=False).encode()


def to_error_object(status: int, body: bytes) -> dict[str, Any]:
    """The envelope's inner object: the upstream's words where it used any that can be shown, and all four keys.

    Known shapes: OpenAI's with keys missing or numbers as code, `{"error": "text"}`, Databricks' `{"error_code",
    "message"}`, vLLM's older `{"object": "error", ...}`, FastAPI's `{"detail"}`. A page of HTML is never shown.
    """
    parsed = _parse(body)
    content = parsed if isinstance(parsed, Mapping) else {}
    inner = content.get("error")
    found: Mapping[str, Any] = inner if isinstance(inner, Mapping) else content
    message = inner if isinstance(inner, str) else _first_text(found, "message", "detail", "msg")
    if message is None and isinstance(found.get("detail"), list):
        message = json.dumps(found["detail"], ensure_ascii=False)
    type_, code = _BY_STATUS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    given_code = found.get("code", found.get("error_code"))
    standard = to_envelope(
        (message or f"The upstream answered with status {status}.")[:MOST_WORDS],
        _first_text(found, "type") or type_,
        _first_text(found, "param"),
        code if given_code is None else str(given_code),
    )["error"]
    return {**(inner if isinstance(inner, Mapping) else {}), **standard}


def _is_exact(error: Any) -> bool:
    return (
        isinstance(error, Mapping)
        and isinstance(error.get("message"), str)
        and isinstance(error.get("type"), str)
        and all(key in error and isinstance(error[key], str | None) for key in ("param", "code"))
    )


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first_text(found: Mapping[str, Any], *names: str) -> str | None:
    return next((found[name] for name in names if isinstance(found.get(name), str) and found[name]), None)
