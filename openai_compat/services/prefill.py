"""Payloads that ask a model to continue a partial answer, and the payloads whose answers can be continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openai_compat.core.types import JSON

TOKEN_LIMITS: Final = ("max_tokens", "max_completion_tokens")
FORMAT_KEYS: Final = (
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "json_schema", "regex",
    "ebnf", "grammar",
)  # fmt: skip
"""Parameters of vLLM, SGLang and llama.cpp that constrain the format of the answer."""
MAX_STOP_CHARS: Final = 1000
"""Characters of a stop sequence that are compared, because the work grows with their square."""


def is_single_text(payload: Mapping[str, Any], *, is_prompt: bool) -> bool:
    """Return True if the answer may be a single run of text, which another model can continue."""
    if (payload.get("n") or 1) != 1 or any(payload.get(name) for name in ("logprobs", "best_of", "echo")):
        return False
    return not is_prompt or (isinstance(payload.get("prompt"), str) and not payload.get("suffix"))


def has_format(payload: Mapping[str, Any]) -> bool:
    """Return True if the format of the answer is constrained, as that of structured output is."""
    format_ = payload.get("response_format")
    is_structured = isinstance(format_, dict) and format_.get("type") not in (None, "text")
    return is_structured or any(payload.get(name) for name in FORMAT_KEYS)


def stops_of(payload: Mapping[str, Any]) -> Sequence[str]:
    """Return the stop sequences of a payload."""
    stop = payload.get("stop") or ()
    return [stop] if isinstance(stop, str) else [item for item in stop if isinstance(item, str)]


def ends_within(text: str, stops: Sequence[str]) -> bool:
    """Return True if the text ends with the beginning of a stop sequence."""
    return any(text.endswith(stop[:end]) for stop in stops for end in range(1, min(len(stop), MAX_STOP_CHARS)))


def with_answer(messages: Sequence[JSON], text: str) -> list[JSON]:
    """Return the messages with the text as the beginning of the answer.

    A last message of the assistant was continued, so the text belongs to it. Many templates refuse two in a row.
    """
    last = messages[-1] if messages else {}
    content = last.get("content")
    if last.get("role") == "assistant" and isinstance(content, str) and not last.get("tool_calls"):
        return [*messages[:-1], {**last, "content": content + text}]
    return [*messages, {"role": "assistant", "content": text}]


def mark_prefill(chat: JSON, prefill: str | None) -> None:
    """Ask a model to continue the last message, in the way that its entry of the models file names.

    `prefix` is the spelling of DeepSeek and Mistral, `continue_final_message` that of vLLM. Many other models continue
    a last message whose role is `assistant`.
    """
    if prefill == "prefix":
        chat["messages"] = [*chat["messages"][:-1], {**chat["messages"][-1], "prefix": True}]
    elif prefill == "continue_final_message":
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
