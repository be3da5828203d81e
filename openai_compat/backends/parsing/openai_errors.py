"""Parser for upstream errors of any known shape, and their translation into OpenAI's error object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

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
# code or type -> status, for an error object without a status of its own (sources: the error codes of OpenAI's
# documentation, the error types of Anthropic's, google.rpc.Code, the error codes of Databricks' REST API, vLLM's error
# types, DashScope's error codes)
_STATUS_BY_NAME: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "invalid_request_error", "bad_request_error", "badrequesterror", "bad_request", "invalid_argument",
            "failed_precondition", "out_of_range", "invalid_parameter_value", "invalidparameter", "invalid_value",
            "invalid_type", "missing_required_parameter", "unsupported_parameter", "unsupported_value",
            "context_length_exceeded", "string_above_max_length", "content_policy_violation", "content_filter",
            "responsibleaipolicyviolation", "data_inspection_failed", "datainspectionfailed",
        ),
        400,
    ),
    **dict.fromkeys(
        ("invalid_api_key", "authentication_error", "unauthenticated", "unauthorized", "invalidapikey"), 401
    ),
    **dict.fromkeys(("billing_error",), 402),
    **dict.fromkeys(("permission_error", "permission_denied", "forbidden", "access_denied", "accessdenied"), 403),
    **dict.fromkeys(
        ("model_not_found", "not_found_error", "not_found", "notfounderror", "resource_does_not_exist",
         "deploymentnotfound", "modelnotfound"),
        404,
    ),
    **dict.fromkeys(("request_too_large",), 413),
    **dict.fromkeys(
        (
            "rate_limit_error", "rate_limit_exceeded", "ratelimiterror", "too_many_requests", "insufficient_quota",
            "resource_exhausted", "request_limit_exceeded", "throttling", "throttlingexception", "quota_exceeded",
            "requests", "tokens",
        ),
        429,
    ),
    **dict.fromkeys(("server_error", "internal_error", "internal_server_error", "api_error", "internal"), 500),
    **dict.fromkeys(
        ("overloaded_error", "service_unavailable", "serviceunavailableerror", "unavailable", "temporarily_unavailable",
         "model_loading", "engine_overloaded"),
        503,
    ),
    **dict.fromkeys(("timeout_error", "timeout", "deadline_exceeded", "gateway_timeout"), 504),
}  # fmt: skip
_STATUS_KEYS = ("status", "status_code", "statusCode", "code")
_NAME_KEYS = ("code", "error_code", "type", "status")
_MESSAGE_KEYS = ("message", "detail", "msg", "error_message", "error", "errors", "error_description", "reason", "title")
_ANSWER_KEYS = frozenset({"data", "output", "usage"})
_EVENT_DATA = re.compile(rb"^data: ?([^\r\n]+)", re.MULTILINE)
_MAX_PLAIN_TEXT = 300
"""Characters of an error in plain text that is relayed. Longer texts are pages or tracebacks."""

ToError = Callable[[int | None, bytes], OpenAICompatError]
"""Builds the exception for an upstream's error from its status (None if unknown) and its JSON."""


def read_error(response: UpstreamResponse) -> UpstreamStatusError:
    """Read the body of a response with status 400 or more and return the error to raise."""
    return to_status_error(response.status, response.read(), retry_headers(response.headers))


def to_status_error(
    status: int | None, body: bytes, headers: Mapping[str, str] | None = None, message: str | None = None
) -> UpstreamStatusError:
    """Return the error that relays the upstream's. `message` replaces its message. An unknown status becomes 502."""
    error = to_error_object(status or 502, body)
    return UpstreamStatusError(
        message or error["message"],
        upstream_status=status or 502,
        type_=error["type"],
        param=error["param"],
        code=error["code"],
        headers=headers,
    )


def retry_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an error that control the client's retries."""
    return {name: headers[name] for name in RETRY_HEADERS if name in headers}


def is_error(value: JSONObject) -> bool:
    """Return True if a JSON object of a response with status 200 is an error instead of an answer.

    Known shapes are an `error` that is neither null nor empty, `{"object": "error"}` of FastChat and older vLLM, and a
    list of `errors` without an answer beside it.
    """
    if value.get("error") or value.get("object") == "error":
        return True
    return bool(value.get("errors")) and value.keys().isdisjoint({"choices", "data", "output"})


def is_error_answer(value: JSONObject) -> bool:
    """Return True if a JSON object of OpenAI's protocol is an error. It also recognises errors without an envelope.

    These have neither an answer nor usage, but a message with a code (Databricks, DashScope), or FastAPI's `detail`.
    """
    if "choices" in value and not value.get("error"):
        return bool(value.get("object") == "error")
    if is_error(value):
        return True
    if not value.keys().isdisjoint(_ANSWER_KEYS):
        return False
    code = value.get("error_code") or value.get("code")
    has_code = code not in (None, "", 0, 200, "0", "200")
    return bool(value.get("detail")) or (has_code and _find_message(value) is not None)


def to_error_chunk(data: str) -> dict[str, Any]:
    """Return the error object of an event named `error`. Its data may be JSON or plain text."""
    chunk = _parse(data)
    if not isinstance(chunk, dict):
        return {"error": {"message": data.strip() or None}}
    return chunk if is_error(chunk) else {"error": chunk}


def raise_error_in(value: JSONObject, to_error: ToError = to_status_error) -> None:
    """Raise the error that a JSON object of a response with status 200 contains, as in the middle of a stream.

    Raises:
        OpenAICompatError: `value` is an error. `to_error` builds the exception.
    """
    if is_error(value):
        raise to_error(find_status(value), json.dumps(value).encode())


def find_status(value: JSONObject) -> int | None:
    """Return the HTTP status that an error object names, by number or by the name of its code or type."""
    objects = [found for found in (value.get("error"), _first_object(value.get("errors")), value) if _is_object(found)]
    texts = [str(found.get(key)) for found in objects for key in _STATUS_KEYS]
    numbers = (int(text) for text in texts if text.isdecimal() and len(text) == 3)
    names = (str(found.get(key)).lower() for key in _NAME_KEYS for found in objects)
    by_name = (_STATUS_BY_NAME[name] for name in names if name in _STATUS_BY_NAME)
    return next((number for number in numbers if 400 <= number <= 599), None) or next(by_name, None)


def _is_object(value: Any) -> TypeGuard[JSONObject]:
    return isinstance(value, dict)


def _first_object(values: Any) -> Any:
    return values[0] if isinstance(values, list) and values else None


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
    `{"error_code", "message"}`, vLLM's older `{"object": "error", ...}`, FastAPI's `{"detail"}` as text, list or
    object, lists of errors, and short plain text, each also as an event. HTML is never relayed.
    """
    body = strip_event(body)
    parsed = _parse(body)
    content = parsed if isinstance(parsed, Mapping) else {}
    inner = content.get("error")
    if inner is None:
        inner = _first_object(content.get("errors"))
    found: Mapping[str, Any] = inner if isinstance(inner, Mapping) else content
    message = _find_message(parsed) if parsed is not None else _plain_text(body)
    type_, code = _BY_STATUS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    given_code = found.get("code", found.get("error_code"))
    standard = to_envelope(
        (message or f"The upstream responded with status {status}.")[:MAX_MESSAGE_CHARS],
        _first_text(found, "type") or type_,
        _first_text(found, "param"),
        str(given_code) if isinstance(given_code, str | int) else code,
    )["error"]
    return {**(inner if isinstance(inner, Mapping) else {}), **standard}


def _find_message(value: Any, depth: int = 0) -> str | None:
    """Return the message in an error of any shape, or None. It is never a Python repr."""
    if isinstance(value, str):
        return value.strip() or None
    if depth > 4:
        return None
    if isinstance(value, Mapping):
        messages = (_find_message(value[key], depth + 1) for key in _MESSAGE_KEYS if value.get(key))
        return next((message for message in messages if message), None)
    if isinstance(value, list) and value:
        if all(isinstance(item, Mapping) and "loc" in item for item in value):  # FastAPI: the location matters, too
            return json.dumps(value, ensure_ascii=False)
        return "; ".join(message for item in value[:5] if (message := _find_message(item, depth + 1))) or None
    return None


def strip_event(body: bytes) -> bytes:
    """Return the data of an error that was sent as an event, or the body if it is none."""
    found = _EVENT_DATA.search(body) if body.lstrip().startswith((b"data:", b"event:")) else None
    return body if found is None else found[1]


def _plain_text(body: bytes) -> str | None:
    """Return a short error in plain text, or None for HTML, binary data, tracebacks and long texts."""
    text = body[: 4 * _MAX_PLAIN_TEXT + 1].decode("utf-8", "replace").strip()
    is_shown = text and len(text) <= _MAX_PLAIN_TEXT and "\ufffd" not in text
    return None if not is_shown or text.startswith(("<", "{", "[", "Traceback ")) else " ".join(text.split())


def _is_exact(error: Any) -> bool:
    return (
        isinstance(error, Mapping)
        and isinstance(error.get("message"), str)
        and isinstance(error.get("type"), str)
        and all(key in error and isinstance(error[key], str | None) for key in ("param", "code"))
    )


def _parse(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first_text(found: Mapping[str, Any], *names: str) -> str | None:
    return next((found[name] for name in names if isinstance(found.get(name), str) and found[name]), None)
