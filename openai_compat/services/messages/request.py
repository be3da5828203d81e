"""Requests of the Messages API as chat payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.core.anthropic import THREAD_UNSUPPORTED, end_user_in
from openai_compat.core.errors import ContextLengthExceededError, UnsupportedParameterError
from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON
from openai_compat.services.adaptations import to_shown
from openai_compat.services.prefill import mark_prefill
from openai_compat.services.request_fields import missing_parameter, object_at

from .history import MessageBuilder
from .tools import ToolMap, to_tool_map, to_tool_parameters

IGNORED: Final = frozenset(
    {
        "cache_control", "context_management", "diagnostics", "inference_geo", "service_tier", "speed",
        "user_profile_id",
    }
)  # fmt: skip
"""Parameters without an effect on what a chat model is asked. Clients send them with every call."""
HANDLED: Final = frozenset(
    {
        "model", "max_tokens", "messages", "system", "stream", "tools", "tool_choice", "stop_sequences", "temperature",
        "top_p", "thinking", "output_config", "output_format", "metadata", *IGNORED,
    }
)  # fmt: skip
THREAD: Final = "thread"
REFUSED: Final = {
    THREAD: "this server keeps no conversations of the Messages API.",
    "compaction": "it writes no compaction blocks.",
}
"""Parameters that change the answer, and that no chat model has."""
EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Anthropic's efforts -> those that every chat model with efforts knows."""
LOW_BUDGET: Final = 4096
MEDIUM_BUDGET: Final = 16_384
"""Budgets of thinking below which an effort is low or medium."""
LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""Names of the limit on an answer, the first one that a backend supports is used."""


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """The chat payload of a request without its limit, its tools, and what the payload could not express."""

    chat: Mapping[str, Any]
    tools: ToolMap
    adaptations: Mapping[str, str]
    max_tokens: int | None

    @property
    def stop_sequences(self) -> Sequence[str]:
        """The texts that end the answer."""
        return self.chat.get("stop") or ()

    def for_backend(
        self, backend: Backend, model: str, prompt_tokens: int, sent_tokens: int = 0
    ) -> tuple[JSON, dict[str, str]]:
        """Return the chat payload for one model, and what was adapted for it.

        `sent_tokens` are those of the answer that the client has and that the model is to continue.

        Raises:
            UnsupportedParameterError: the answer has begun, and the model cannot continue one.
            ContextLengthExceededError: the prompt leaves nothing of the context window.
        """
        chat = dict(self.chat)
        if chat["messages"][-1]["role"] == "assistant":
            _continue_answer(chat, backend.entry.assistant_prefill, model)
        if self.max_tokens is None:
            return chat, {}
        name = next((limit for limit in LIMITS if _supports(backend, limit)), None)
        if name is None:
            return chat, {"max_tokens": DROPPED}
        wanted = min(self.max_tokens, max(self.max_tokens - sent_tokens, 1))
        chat[name] = limit = _clamp(wanted, backend, prompt_tokens + sent_tokens)
        return chat, {} if limit == wanted else {"max_tokens": str(limit)}


def translate_request(payload: Mapping[str, Any]) -> TranslatedRequest:
    """Return the chat call for a request.

    Raises:
        InvalidRequestError: a part of it is malformed.
        UnsupportedParameterError: a part of it cannot be honoured by a chat model.
    """
    _refuse(payload)
    builder = MessageBuilder()
    builder.add_system(payload.get("system"))
    builder.add_all(payload["messages"])
    messages = builder.build()
    if not any(message["role"] != "system" for message in messages):
        raise missing_parameter("messages")
    tools = to_tool_map(payload.get("tools") or ())
    chat: JSON = {"model": payload.get("model"), "messages": messages, "stream": payload.get("stream") is True}
    chat.update({name: payload[name] for name in ("temperature", "top_p") if payload.get(name) is not None})
    chat.update(_generation(payload))
    chat.update(to_tool_parameters(payload.get("tool_choice"), tools))
    unknown = {name: DROPPED for name, value in payload.items() if name not in HANDLED and value is not None}
    adaptations = to_shown({**tools.adaptations, **builder.adaptations, **unknown})
    return TranslatedRequest(chat, tools, adaptations, payload.get("max_tokens"))


def _refuse(payload: Mapping[str, Any]) -> None:
    """Raise `UnsupportedParameterError` for what changes the answer, and what no chat model has."""
    for name, reason in REFUSED.items():
        if payload.get(name) is not None:
            error = UnsupportedParameterError(name, str(payload.get("model")), reason)
            error.code = THREAD_UNSUPPORTED if name == THREAD else error.code
            raise error


def _generation(payload: Mapping[str, Any]) -> JSON:
    """Return the parameters that have another name or form in chat."""
    config = payload.get("output_config") or {}
    found = {
        "stop": payload.get("stop_sequences") or None,
        "reasoning_effort": _to_effort(config, payload.get("thinking") or {}),
        "response_format": _to_response_format(config.get("format") or payload.get("output_format")),
        "user": _to_user(payload.get("metadata") or {}),
    }
    return {name: value for name, value in found.items() if value is not None}


def _to_effort(config: Mapping[str, Any], thinking: Mapping[str, Any]) -> str | None:
    """Return the effort that the client chose, or the one that its budget stands for.

    Adaptive thinking leaves the effort to the model, as models that do not reason refuse any.
    """
    effort = EFFORTS.get(str(config.get("effort")))
    budget = thinking.get("budget_tokens")
    if effort is not None or thinking.get("type") != "enabled" or not isinstance(budget, int):
        return effort
    return "low" if budget < LOW_BUDGET else "medium" if budget < MEDIUM_BUDGET else "high"


def _to_response_format(format_: Any) -> JSON | None:
    if format_ is None:
        return None
    schema = object_at(object_at(format_, "output_config.format").get("schema"), "output_config.format.schema")
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}


def _to_user(metadata: Mapping[str, Any]) -> str | None:
    """Return a hash of the user's id, which is long and names devices and accounts."""
    user = end_user_in(metadata)
    return None if user is None else sha256(user.encode("utf-8", "replace")).hexdigest()


def _supports(backend: Backend, parameter: str) -> bool:
    return not isinstance(backend, SupportsChat) or parameter in backend.supported_chat_parameters


def _clamp(max_tokens: int, backend: Backend, prompt_tokens: int) -> int:
    """Return the limit on the answer's tokens that the model can take.

    Claude Code asks for 32,000, and for 128,000 after an answer that was too long. `prompt_tokens` is an estimate, to
    which a sixth is added. Of what is left without this sixth, an answer gets at least the half.

    Raises:
        ContextLengthExceededError: nothing is left. An answer of one token would look like one that was too long, and
            servers that cut off the beginning of a long prompt refuse none.
    """
    entry = backend.entry
    limits = [max_tokens] if entry.max_output_tokens is None else [max_tokens, entry.max_output_tokens]
    if (window := entry.context_window) is not None:
        if prompt_tokens >= window:
            raise ContextLengthExceededError(max(prompt_tokens, window + 1), window)
        limits.append(max(window - prompt_tokens * 7 // 6, (window - prompt_tokens + 1) // 2))
    return min(limits)


def _continue_answer(chat: JSON, prefill: str | None, model: str) -> None:
    """Ask the model to continue the last message.

    Raises:
        UnsupportedParameterError: its entry of the models file names no way to do so.
    """
    if prefill is None:
        raise UnsupportedParameterError(
            "messages", model, "it cannot continue a message of the assistant, so the last one must be the user's."
        )
    mark_prefill(chat, prefill)
