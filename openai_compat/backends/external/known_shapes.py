"""Key names of known chat APIs for the text, the finish reason, the usage and errors, and functions that search them.

The keys are tried in the order of the tables. They cover Anthropic, Bedrock, Cohere, Dify, Gemini, Hugging Face,
llama.cpp, Ollama, Rasa, Replicate, and common names of custom APIs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from openai_compat.backends.parsing.openai_chat import as_dict, normalise_finish_reason
from openai_compat.core.types import FinishReason, JSONObject

TEXT_KEYS: Final = (
    "reply", "answer", "generated_text", "output_text", "outputText", "completion", "response", "content", "text",
    "output", "result", "generation", "bot", "assistant",
)  # fmt: skip
"""Keys of a text that is the answer."""

NESTING_KEYS: Final = (
    "token", "delta", "message", "choices", "candidates", "data", "reply", "answer", "response", "output", "result",
    "content", "parts", "messages", "outputs", "results", "generations", "predictions", "generation", "assistant",
)  # fmt: skip
"""Keys of a value that may contain the answer."""

WEAK_TEXT_KEYS: Final = ("message", "delta", "data", "token", "chunk", "body", "value", "prediction")
"""Keys of a text that is the answer if there is no other, unlike in {"message": "success", "data": {"answer": ...}}."""

ALTERNATIVES: Final = frozenset({"choices", "candidates", "outputs", "results", "generations", "predictions"})
"""Keys of lists with alternative answers, of which the first one is used."""

NON_TEXT_TYPES: Final = (
    "thinking", "reasoning", "redacted_thinking", "tool_use", "tool_call", "function_call", "tool_result",
)  # fmt: skip
"""Values of `type` for content that is not part of the text."""
FINISH_KEYS: Final = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "completionReason")
FINISH_FLAGS: Final = ("done", "finished", "is_finished", "isFinished", "is_end", "is_final", "stop", "completed")
FINISH_EVENTS: Final = frozenset(
    {"done", "end", "finish", "finished", "complete", "completed", "final", "message_stop", "message_end",
     "stream-end", "stream_end", "response.completed"}
)  # fmt: skip
PROMPT_COUNTS: Final = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count",
                        "inputTextTokenCount", "tokens_evaluated")  # fmt: skip
COMPLETION_COUNTS: Final = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count",
                            "generated_tokens", "tokens_predicted")  # fmt: skip
USAGE_KEYS: Final = ("usage", "usageMetadata", "usage_metadata", "token_usage", "tokens", "meta", "metadata", "details")
REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
CODE_KEYS: Final = ("code", "status", "status_code", "statusCode")
EVENT_KEYS: Final = ("type", "event", "event_type")
FAILURE_VALUES: Final = frozenset({"error", "err", "fail", "failed", "failure"})

_LIST_INDEX: Final = re.compile("-?[0-9]{1,9}")
_METADATA_KEYS: Final = frozenset({*NESTING_KEYS, "details", "metadata"})
_INNER_METADATA_KEYS: Final = ("message", "details")
_COUNT_KEYS: Final = frozenset({*PROMPT_COUNTS, *COMPLETION_COUNTS, *USAGE_KEYS})
_STATUS_KEYS: Final = frozenset({*CODE_KEYS, *EVENT_KEYS, "success", "ok"})

_MAX_DEPTH: Final = 6


def find_text(value: Any, levels: int = _MAX_DEPTH) -> str | None:
    """Return the answer's text in a JSON value, "" if it is empty, or None if there is no key for it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _find_in_list(value, levels)
    if not isinstance(value, dict) or not levels or value.get("type") in NON_TEXT_TYPES:
        return None
    if value.get("special") is True:  # text-generation-inference marks tokens such as </s>
        return ""
    if isinstance(value.get("token"), dict):  # text-generation-inference repeats the full text beside the last token
        return find_text(value["token"], levels - 1)
    return _first_non_empty(_candidates(value, levels))


def find_reply(value: Any) -> str | None:
    """Return the text of a complete reply. A list at the top is a list of messages, as Rasa sends it."""
    if isinstance(value, list) and not any(isinstance(item, str) for item in value):
        texts = [text for text in map(find_text, value) if text is not None]
        return "\n".join(filter(None, texts)) if texts else None
    return find_text(value)


def follow_path(value: Any, path: str) -> Any:
    """Return the value at a dotted path such as `data.answers.0.text`, or None if there is none."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and _LIST_INDEX.fullmatch(step) and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def to_parts(value: JSONObject) -> list[JSONObject]:
    """Return the object and the nested objects that may have metadata, up to two levels deep.

    The list is made once for each object and shared by the functions below, most of which find nothing.
    """
    parts = [value]
    for key, nested in value.items():
        if key in _METADATA_KEYS:
            inner = nested[0] if isinstance(nested, list) and nested else nested
            if isinstance(inner, dict):
                parts.append(inner)
                parts += [inner[deeper] for deeper in _INNER_METADATA_KEYS if isinstance(inner.get(deeper), dict)]
    return parts


def find_finish_reason(parts: Sequence[JSONObject]) -> FinishReason | None:
    """Return the finish reason, or None if the object does not report the end of the answer.

    Raises:
        UpstreamTruncatedError: The answer ended with a failure.
    """
    for part in parts:
        if not part.keys().isdisjoint(FINISH_KEYS):
            for key in FINISH_KEYS:
                if isinstance(part.get(key), str) and part[key]:
                    return normalise_finish_reason(part[key])
    value = parts[0]
    event = event_type(value)
    if event == "response.failed":
        return normalise_finish_reason("failed")
    is_incomplete = event == "response.incomplete" or (
        value.get("object") == "response" and value.get("status") == "incomplete"
    )
    if value.get("stop_type") == "limit" or value.get("stopped_limit") is True or is_incomplete:
        return "length"
    is_flagged = not value.keys().isdisjoint(FINISH_FLAGS) and any(value.get(key) is True for key in FINISH_FLAGS)
    return "stop" if is_flagged or event in FINISH_EVENTS else None


def has_finish_field(parts: Sequence[JSONObject]) -> bool:
    """Return True if the object has a field for the end of the answer, so that its stream reports its end."""
    if any(not part.keys().isdisjoint(FINISH_KEYS) for part in parts):
        return True
    value = parts[0]
    return not value.keys().isdisjoint(FINISH_FLAGS) and any(isinstance(value.get(key), bool) for key in FINISH_FLAGS)


def find_counts(parts: Sequence[JSONObject]) -> dict[str, Any]:
    """Return the token counts under OpenAI's names.

    Some streams report the prompt's count at the beginning and the answer's at the end.
    """
    for part in parts:
        if part.keys().isdisjoint(_COUNT_KEYS):
            continue
        for counts in (*(part.get(key) for key in USAGE_KEYS), part):
            found = as_dict(counts)
            nested = as_dict(found.get("usage") or found.get("tokens"))
            if read := _read_counts(nested) or _read_counts(found):
                return read
    return {}


def find_reasoning(parts: Sequence[JSONObject]) -> str | None:
    """Return the reasoning text, or None if the object has none."""
    found = (part.get(key) for part in parts if not part.keys().isdisjoint(REASONING_KEYS) for key in REASONING_KEYS)
    return next((text for text in found if isinstance(text, str) and text), None)


def is_failure(value: JSONObject) -> bool:
    """Return True if an object in a reply of status 200 reports a failure, so that its `message` is no answer."""
    if value.keys().isdisjoint(_STATUS_KEYS):
        return False
    codes = (value.get(key) for key in CODE_KEYS)
    states = (value.get("status"), event_type(value))
    return (
        value.get("success") is False
        or value.get("ok") is False
        or any(isinstance(code, int) and 400 <= code <= 599 for code in codes)
        or any(isinstance(state, str) and state.lower() in FAILURE_VALUES for state in states)
    )


def event_type(value: JSONObject) -> str:
    """Return the event type that an object names, or ""."""
    for key in EVENT_KEYS:
        name = value.get(key)
        if isinstance(name, str):
            return name
    return ""


def _candidates(value: JSONObject, levels: int) -> Iterator[str | None]:
    if not value.keys().isdisjoint(TEXT_KEYS):
        for key in TEXT_KEYS:
            if isinstance(value.get(key), str):
                yield value[key]
    for key in NESTING_KEYS:
        if isinstance(value.get(key), dict | list):
            yield find_text(_select(key, value[key]), levels - 1)
    for key in WEAK_TEXT_KEYS:
        if isinstance(value.get(key), str):
            yield value[key]


def _first_non_empty(candidates: Iterator[str | None]) -> str | None:
    """Return the first text that is not empty, "" if all are empty, or None if there are none."""
    found = None
    for text in candidates:
        if text:
            return text
        found = text if found is None else found
    return found


def _select(key: str, value: Any) -> Any:
    """Return the first of a list of alternatives, or the last message of a conversation."""
    if isinstance(value, list) and key in ALTERNATIVES and not all(isinstance(item, str) for item in value):
        return value[:1]
    return value[-1:] if isinstance(value, list) and key == "messages" else value


def _find_in_list(items: list[Any], levels: int) -> str | None:
    if not levels:
        return None
    texts = [text for item in items if (text := find_text(item, levels - 1)) is not None]
    return "".join(texts) if texts or not items else None


def _read_counts(counts: JSONObject) -> dict[str, Any]:
    found = {
        name: next((counts[key] for key in keys if isinstance(counts.get(key), int)), None)
        for name, keys in (("prompt_tokens", PROMPT_COUNTS), ("completion_tokens", COMPLETION_COUNTS))
    }
    if all(count is None for count in found.values()):
        return {}
    details = {
        "prompt_tokens_details": counts.get("prompt_tokens_details") or counts.get("input_tokens_details"),
        "completion_tokens_details": counts.get("completion_tokens_details") or counts.get("output_tokens_details"),
    }
    return {name: value for name, value in (found | details).items() if value is not None}
