"""An upstream's error in whatever shape it has, told in OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import UpstreamError, UpstreamStatusError, to_envelope
from openai_compat.core.types import JSONObject

RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
MAX_MESSAGE_CHARS = 1000
"""Characters of an upstream's own words that are passed on."""

# status -> (type, code) for an upstream that gives none (source: the error codes of OpenAI's documentation)
_BY_STATUS: Mapping[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
# What an error within an answer of status 200 calls itself, where it names no status (source: OpenAI's codes,
# Anthropic's types).
_STATUS_OF_WORD: Mapping[str, int] = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
_STATUS_KEYS = ("status", "status_code", "statusCode", "code")

ToError = Callable[[int | None, bytes], UpstreamError]
"""Makes the exception of an error: of its status, None where nothing names one, and of the JSON that tells of it."""


def read_error(reply: UpstreamResponse) -> UpstreamStatusError:
    """The error that a reply of status 400 or more stands for; reads the body."""
    return to_status_error(reply.status, reply.read(), retry_headers(reply.headers))


def to_status_error(
    status: int | None, body: bytes, headers: Mapping[str, str] | None = None, message: str | None = None
) -> UpstreamStatusError:
    """The upstream's error, to be relayed: with `message`, or in its own words. 500 where it names no status."""
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
    """Those of an error's headers that the client acts upon."""
    return {name: headers[name] for name in RETRY_HEADERS if name in headers}


def raise_error_in(reply: JSONObject, to_error: ToError = to_status_error) -> None:
    """For errors that come with status 200, in the middle of a stream for example.

    Raises:
        UpstreamError: `reply` has an `error` that is neither null nor empty; what `to_error` makes of it.
    """
    if reply.get("error"):
        raise to_error(find_status(reply), json.dumps(reply).encode())


def find_status(reply: JSONObject) -> int | None:
    """The HTTP status that an error within an answer names, by number or by one of OpenAI's and Anthropic's words."""
    error = reply.get("error")
    places = [error, reply] if isinstance(error, Mapping) else [reply]
    named = [str(place.get(key)) for place in places for key in _STATUS_KEYS]
    numbers = (int(name) for name in named if name.isdecimal() and len(name) == 3)
    words = (str(place.get(key)) for place in places for key in ("code", "type"))
    by_word = (_STATUS_OF_WORD[word] for word in words if word in _STATUS_OF_WORD)
    return next((number for number in numbers if 400 <= number <= 599), None) or next(by_word, None)


def refuses_stream_options(status: int, error: Mapping[str, Any] | bytes) -> bool:
    """Whether an answer of `status` refuses the parameter `stream_options`: by the `param` that its error names, by its
    words where it names none. `error` is the envelope's inner object, or the body as it came.
    """
    if status not in {400, 422}:
        return False
    told = to_error_object(status, error) if isinstance(error, bytes) else error
    return "stream_options" in (told.get("param") or told.get("message") or "")


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
        (message or f"The upstream answered with status {status}.")[:MAX_MESSAGE_CHARS],
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
