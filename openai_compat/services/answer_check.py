"""The check that a complete body is an answer to the call."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from openai_compat.backends.parsing.answer_format import describe_non_json
from openai_compat.backends.parsing.json_check import (
    MAX_PARSED_BYTES,
    SLICE_BYTES,
    NonFiniteNumberError,
    check_large_object,
    iterate_keys,
    parse_repaired,
    parse_strict,
)
from openai_compat.backends.parsing.openai_chat import as_dict, read_usage
from openai_compat.backends.parsing.openai_errors import is_error_answer
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import Usage

from .event_stream import JSON
from .inference_call import CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH, MESSAGES_PATH, RESPONSES_PATH
from .openai_objects import to_json
from .sse_events import choices_of

USAGE_TAIL_BYTES: Final = 4096
MAX_PARSED_ERROR_BYTES: Final = SLICE_BYTES
"""Larger bodies are not parsed to find out which error they are."""
_FILLED_LIST: Final = re.compile(rb"\s*+\[\s*+[^\s\]]")
_EMPTY_VALUE: Final = re.compile(rb"\s*+(?:null|false|\"\"|\{\s*+\}|\[\s*+\])")
_ERROR_KEYS: Final = frozenset({b"error", b"errors"})
_REQUIRED: Final = {
    CHAT_PATH: "choices",
    COMPLETIONS_PATH: "choices",
    EMBEDDINGS_PATH: "data",
    RESPONSES_PATH: "output",
    MESSAGES_PATH: "content",
}
_MAY_BE_EMPTY: Final = frozenset({EMBEDDINGS_PATH, MESSAGES_PATH, RESPONSES_PATH})


def check_answer(path: str, body: bytes) -> tuple[JSON, bytes, Usage | None]:
    """Return the body's JSON object (empty for a large one), the bytes to send, and the usage.

    `NaN` and `Infinity` in log probabilities become `LOWEST_LOGPROB`. The finish reason `stop` after tool calls becomes
    `tool_calls`, and an empty one becomes `stop`. Other bodies are returned unchanged.

    Raises:
        UpstreamInvalidResponseError: it is no complete JSON object, or neither an answer nor an error.
    """
    if len(body) > MAX_PARSED_BYTES and _is_large_answer(path, body):
        return {}, body, find_usage(body)
    try:
        value = parse_strict(body)
    except NonFiniteNumberError:
        value, body = _repair(path, body)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError(describe_non_json(body)) from error
    if not isinstance(value, dict):
        raise UpstreamInvalidResponseError("The upstream's answer is not a JSON object.")
    required = _REQUIRED.get(path, "")
    answers = value.get(required)
    has_answer = isinstance(answers, list) and (path in _MAY_BE_EMPTY or (answers and _is_choice(path, answers[0])))
    if not has_answer and not is_error_answer(value):
        raise UpstreamInvalidResponseError(f"The upstream's answer has no '{required}' that are an answer.")
    if path != EMBEDDINGS_PATH and _repair_finish_reasons(value):
        body = to_json(value)
    return value, body, read_usage(value.get("usage"))


def _is_choice(path: str, value: Any) -> bool:
    """Return True if a choice has a message, or of a text completion a text."""
    choice = as_dict(value)
    return isinstance(choice.get("message"), dict) if path == CHAT_PATH else "text" in choice


def _repair_finish_reasons(value: JSON) -> bool:
    """Replace the finish reasons that end agents' loops too early or that no client knows. Return True if any."""
    has_changed = False
    for choice in choices_of(value):
        reason = choice.get("finish_reason")
        if reason == "" or (reason == "stop" and as_dict(choice.get("message")).get("tool_calls")):
            choice["finish_reason"] = "tool_calls" if as_dict(choice.get("message")).get("tool_calls") else "stop"
            has_changed = True
    return has_changed


def check_json_object(body: bytes) -> None:
    """Raise `UpstreamInvalidResponseError` if a body is not a JSON object of at most `MAX_PARSED_BYTES`."""
    try:
        is_object = len(body) <= MAX_PARSED_BYTES and isinstance(parse_strict(body), dict)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError(describe_non_json(body)) from error
    if not is_object:
        raise UpstreamInvalidResponseError("The upstream's answer is not a JSON object.")


def _is_large_answer(path: str, body: bytes) -> bool:
    """Return True if a large body is an answer, by its top-level keys. Return False if it must be parsed.

    An error must be parsed, and so must a body that contains `NaN` or `Infinity`.

    Raises:
        UpstreamInvalidResponseError: it is no complete JSON object, or no answer and above `MAX_PARSED_ERROR_BYTES`.
    """
    try:
        check_large_object(body)
    except NonFiniteNumberError:
        return False
    required = _REQUIRED.get(path, "").encode()
    is_answer = False
    for key, position in iterate_keys(body):
        if key == required and _FILLED_LIST.match(body, position, position + SLICE_BYTES) is not None:
            is_answer = True
        if key in _ERROR_KEYS and _EMPTY_VALUE.match(body, position, position + SLICE_BYTES) is None:
            is_answer = False
            break
    if not is_answer and len(body) > MAX_PARSED_ERROR_BYTES:
        raise UpstreamInvalidResponseError("The upstream's answer is too large for an error, and no answer.")
    return is_answer


def _repair(path: str, body: bytes) -> tuple[JSON, bytes]:
    """Return the object with `LOWEST_LOGPROB` in place of `NaN` and `Infinity`, and its JSON.

    Raises:
        UpstreamInvalidResponseError: these numbers are embeddings, which have no such replacement, or it is no complete
            JSON object.
    """
    if path == EMBEDDINGS_PATH:
        raise UpstreamInvalidResponseError("The upstream's embeddings contain NaN or Infinity.")
    try:
        value: Any = parse_repaired(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError("The upstream's answer is not a complete JSON object.") from error
    if not isinstance(value, dict):
        raise UpstreamInvalidResponseError("The upstream's answer is not a JSON object.")
    return value, to_json(value)


def find_usage(body: bytes) -> Usage | None:
    """Return the usage of a long answer without parsing the rest. It stands near the end."""
    at = body.rfind(b'"usage"')
    start = body.find(b"{", at) if at >= 0 else -1
    if start < 0:
        return None
    try:
        text = body[start : start + USAGE_TAIL_BYTES].decode("utf-8", "replace")
        return read_usage(json.JSONDecoder().raw_decode(text)[0])
    except (ValueError, RecursionError):
        return None


def check_may_stream(path: str) -> None:
    """Raise `UpstreamInvalidResponseError` if an event stream is no answer to the call."""
    if path == EMBEDDINGS_PATH:
        raise UpstreamInvalidResponseError("The upstream answered with an event stream instead of embeddings.")
