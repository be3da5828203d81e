"""The response object of the Responses API and its parts that are no output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.types import JSON, TokenLogprob, Usage
from openai_compat.services.openai_objects import now, to_finite

DEFAULTS: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": (),
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""Fields that repeat the request, with the values that they have if the request does not name them."""
ANNOTATIONS: Final = ("url_citation", "file_citation", "container_file_citation", "file_path")
"""Types of annotations of a text."""
INCOMPLETE_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons of an incomplete response by the finish reason of the chat model."""


def new_response(identifier: str, model: str, payload: Mapping[str, Any], *, is_stored: bool) -> JSON:
    """Return the object of a response that has just started. It repeats the client's own tools and tool choice."""
    response: JSON = {
        "id": identifier,
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "store": is_stored,
        "usage": None,
    }
    response.update({name: _value_of(payload, name, default) for name, default in DEFAULTS.items()})
    text, reasoning = payload.get("text") or {}, payload.get("reasoning") or {}
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    response["text"] = {"format": {"type": "text"}, "verbosity": "medium", **_without_nulls(text)}
    response["reasoning"] = {"effort": None, **reasoning, "summary": summary}
    conversation = payload.get("conversation")
    if conversation is not None:
        response["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    return response


def _value_of(payload: Mapping[str, Any], name: str, default: Any) -> Any:
    value = payload.get(name)
    return default if value is None else value


def _without_nulls(value: Mapping[str, Any]) -> JSON:
    return {name: part for name, part in value.items() if part is not None}


def to_finished(response: Mapping[str, Any], output: Sequence[JSON], reason: str | None, usage: Usage) -> JSON:
    """Return the object of a response that has ended with the chat model's finish reason."""
    cause = INCOMPLETE_REASONS.get(reason or "")
    return {
        **response,
        "status": "incomplete" if cause else "completed",
        "completed_at": None if cause else now(),
        "incomplete_details": {"reason": cause} if cause else None,
        "output": output,
        "usage": to_usage(usage),
    }


def to_failed(response: Mapping[str, Any], error: OpenAICompatError) -> JSON:
    """Return the object of a response that failed."""
    return {**response, "status": "failed", "error": {"code": error.code or "server_error", "message": error.message}}


def to_usage(usage: Usage) -> JSON:
    """Return the usage in the words of the Responses API."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def to_logprobs(logprobs: Sequence[TokenLogprob]) -> list[JSON]:
    """Return the log probabilities of a text part."""
    return [
        {**_to_logprob(item.token, item.logprob), "top_logprobs": [_to_logprob(*pair) for pair in item.top]}
        for item in logprobs
    ]


def _to_logprob(token: str, logprob: float | None) -> JSON:
    return {"token": token, "logprob": to_finite(logprob), "bytes": list(token.encode("utf-8", "replace"))}


def to_annotation(annotation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a chat annotation, whose fields stand in an object of their own, in the flat form.

    It is None for types that the Responses API does not have, which its clients cannot read.
    """
    kind = annotation.get("type")
    if kind not in ANNOTATIONS:
        return None
    nested = annotation.get(str(kind))
    return {"type": kind, **nested} if isinstance(nested, dict) else annotation
