"""Parser for upstream errors of any known shape, and their translation into OpenAI's error object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import OpenAICompatError, UpstreamStatusError, to_envelope
from openai_compat.core.types import JSONObject

RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
MAX_MESSAGE_CHARS = 1000
"""Characters of an upstream's message that are relayed."""

# status -> (type, code) for an upstream that sends neither (source: the error codes of OpenAI's documentation)
_BY_STATUS: Mapping[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
# code or type -> status, for an error object in a response of status 200 that names no status (source: OpenAI's codes,
# Anthropic's types)
_STATUS_BY_NAME: Mapping[str, int] = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
_STATUS_KEYS = ("status", "status_code", "statusCode", "code")

ToError = Callable[[int | None, bytes], OpenAICompatError]
"""Builds the exception for an upstream's error from its status (None if unknown) and its JSON."""


def read_error(response: UpstreamResponse) -> UpstreamStatusError:
    """Read the body of a response with status 400 or more and return the error to raise."""
    return to_status_error(response.status, response.read(), retry_headers(response.headers))


def to_status_error(
    status: int | None, body: bytes, headers: Mapping[str, str] | None = None, message: str | None = None
) -> UpstreamStatusError:
    """Return the error that relays the upstream's. `message` replaces its message. An unknown status becomes 500."""
    error = to_error_object(status or 500, body)
    return UpstreamStatusError(
        message or error["message"],
        upstream_status=status or 500,
        type_=error["type"],
        param=error["param"],
        code=error["code"],
        headers=headers,
    )


def retry_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an error that control the client's retries."""
    return {name: headers[name] for name in RETRY_HEADERS if name in headers}


def raise_error_in(value: JSONObject, to_error: ToError = to_status_error) -> None:
    """Raise the error that a JSON object of a response with status 200 contains, as in the middle of a stream.

    Raises:
        OpenAICompatError: `value` has an `error` that is neither null nor empty. `to_error` builds the exception.
    """
    if value.get("error"):
        raise to_error(find_status(value), json.dumps(value).encode())


def find_status(value: JSONObject) -> int | None:
    """Return the HTTP status that an error object names, by number or by a code or type of OpenAI or Anthropic."""
    error = value.get("error")
    objects = [error, value] if isinstance(error, Mapping) else [value]
    texts = [str(found.get(key)) for found in objects for key in _STATUS_KEYS]
    numbers = (int(text) for text in texts if text.isdecimal() and len(text) == 3)
    names = (str(found.get(key)) for found in objects for key in ("code", "type"))
    by_name = (_STATUS_BY_NAME[name] for name in names if name in _STATUS_BY_NAME)
    return next((number for number in numbers if 400 <= number <= 599), None) or next(by_name, None)


def refuses_stream_options(status: int, error: Mapping[str, Any] | bytes) -> bool:
    """Return True if an error rejects the parameter `stream_options`.

    The error's `param` decides, or its message if it has no `param`. `error` is the envelope's inner object or the
    unparsed body.
    """
    if status not in {400, 422}:
        return False
    reported = to_error_object(status, error) if isinstance(error, bytes) else error
    return "stream_options" in (reported.get("param") or reported.get("message") or "")


def to_envelope_bytes(status: int, body: bytes) -> bytes:
    """Return the error in OpenAI's envelope. A body that is a complete envelope already is returned unchanged."""
    parsed = _parse(body)
    if isinstance(parsed, Mapping) and _is_exact(parsed.get("error")):
        return body
    return json.dumps({"error": to_error_object(status, body)}, ensure_ascii=False).encode()


def to_error_object(status: int, body: bytes) -> dict[str, Any]:
    """Return the inner object of OpenAI's envelope with all four keys and the upstream's message, if it has one.

    Known shapes are OpenAI's (also with missing keys or a number as code), `{"error": "text"}`, Databricks'
    `{"error_code", "message"}`, vLLM's older `{"object": "error", ...}` and FastAPI's `{"detail"}`. HTML is never
    relayed.
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
        (message or f"The upstream responded with status {status}.")[:MAX_MESSAGE_CHARS],
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
