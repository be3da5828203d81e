"""Attributes of spans, by OpenTelemetry's conventions for generative AI (semantic-conventions-genai, v0.1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from openai_compat.core.observation import AttemptRecord, EndedRequest
from openai_compat.core.settings import ModelConfig
from openai_compat.core.trace import Trace

Attributes = dict[str, str | int | float | bool | list[str]]

PASSTHROUGH: Final = "passthrough"
OPERATIONS: Final = {"completions": "text_completion", "embeddings": "embeddings", "proxy": PASSTHROUGH}
"""Path of an endpoint, or the view of the passthrough -> name of the operation. All others with a model are `chat`."""
_NUMBERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
"""Parameter of a request -> attribute of its number."""
_TEXTS: Final = {
    "conversation": "gen_ai.conversation.id",
    "previous_response_id": "gen_ai.request.previous_response.id",
}
"""Parameter of a request -> attribute of its text."""
MAX_NUMBER: Final = 2**63 - 1
"""Largest number of OTLP. A larger one would lose all spans that are sent with it."""
MAX_STOPS: Final = 16
MAX_CHARS: Final = 200
_AZURE: Final = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


def operation_of(ended: EndedRequest) -> str:
    """Return the name of the operation."""
    return OPERATIONS.get(ended.operation, "chat")


def call_attributes(ended: EndedRequest, trace: Trace) -> Attributes:
    """Return the attributes of the call's span, without content."""
    operation = operation_of(ended)
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": ended.model[:MAX_CHARS],
        "gen_ai.request.stream": ended.is_streamed,
        "http.response.status_code": ended.status,
        "openai_compat.endpoint": PASSTHROUGH if operation == PASSTHROUGH else ended.operation,
        "openai_compat.request_id": ended.request_id,
    }
    if ended.served is not None:
        attributes["gen_ai.provider.name"] = provider_of(ended.served)
        attributes["gen_ai.response.model"] = ended.served_by or ended.served.name
    if ended.error is not None:
        attributes["error.type"] = ended.error
    if ended.is_streamed and ended.first_token_at is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = ended.first_token_at - ended.started_at
    if ended.key_id is not None and ended.project_id is not None:
        attributes |= {"openai_compat.key_id": ended.key_id, "openai_compat.project_id": ended.project_id}
    if ended.adapted:
        attributes["openai_compat.adapted"] = ended.adapted
    return attributes | _usage_attributes(ended) | _parameter_attributes(trace.payload or {})


def attempt_attributes(
    ended: EndedRequest, attempt: AttemptRecord, error: str | None, entry: ModelConfig | None
) -> Attributes:
    """Return the attributes of an attempt's span. `entry` is the model config of its target."""
    attributes: Attributes = {"gen_ai.operation.name": operation_of(ended), "gen_ai.request.model": attempt.target}
    if error is not None:
        attributes["error.type"] = error
    if ended.is_streamed and attempt.first_byte_at is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = attempt.first_byte_at - attempt.started_at
    if entry is not None:
        attributes["gen_ai.provider.name"] = provider_of(entry)
        attributes["gen_ai.request.model"] = entry.upstream_model or entry.name
        attributes |= _address_attributes(entry.base_url)
    return attributes


def provider_of(entry: ModelConfig) -> str:
    """Return the convention's name of a provider, or the kind of a model for which it has none."""
    host = _address_attributes(entry.base_url).get("server.address", "")
    return "azure.ai.openai" if str(host).endswith(_AZURE) else entry.kind


def _usage_attributes(ended: EndedRequest) -> Attributes:
    usage = ended.usage
    if usage is None:
        return {}
    counts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        **{name: count for name, count in counts.items() if count},
    }


def _parameter_attributes(payload: Mapping[str, Any]) -> Attributes:
    """Return the parameters that a request has set. Those that its endpoint does not know may have any type."""
    attributes: Attributes = {}
    for name, attribute in _NUMBERS.items():
        value = payload.get(name)
        if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
            attributes[attribute] = value
    for name, attribute in _TEXTS.items():
        if isinstance(payload.get(name), str):
            attributes[attribute] = payload[name][:MAX_CHARS]
    stop = payload.get("stop") or payload.get("stop_sequences")
    stops = [stop] if isinstance(stop, str) else stop
    if stops and isinstance(stops, list):
        attributes["gen_ai.request.stop_sequences"] = [str(text)[:MAX_CHARS] for text in stops[:MAX_STOPS]]
    return attributes


@lru_cache(maxsize=256)
def _address(base_url: str | None) -> tuple[tuple[str, str | int], ...]:
    parts = urlsplit(base_url or "")
    if parts.hostname is None:
        return ()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (("server.address", parts.hostname), ("server.port", port))


def _address_attributes(base_url: str | None) -> Attributes:
    return dict(_address(base_url))
