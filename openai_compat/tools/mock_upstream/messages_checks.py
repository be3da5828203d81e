"""Checks of requests of the Messages API, with the messages of Anthropic's own."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import ApiError, Json
from .replies import digest

_FIELDS = frozenset(
    {
        "model", "messages", "max_tokens", "system", "stream", "stop_sequences", "temperature", "top_p", "top_k",
        "tools", "tool_choice", "thinking", "output_config", "metadata", "service_tier", "cache_control", "container",
        "context_management", "inference_geo", "mcp_servers",
    }
)  # fmt: skip
_MIN_BUDGET = 1024


def signature_of(thinking: str) -> str:
    """Return the signature of a block of reasoning."""
    return f"sig_{digest(thinking)[:40]}"


def check_parameters(payload: Json) -> None:
    """Raise `ApiError` for the first invalid parameter."""
    for name in payload:
        if name not in _FIELDS:
            raise ApiError(400, f"{name}: Extra inputs are not permitted")
    limit = payload.get("max_tokens")
    if limit is None:
        raise ApiError(400, "max_tokens: Field required")
    if not isinstance(limit, int) or limit < 1:
        raise ApiError(400, "max_tokens: Input should be greater than or equal to 1")
    if not 0 <= payload.get("temperature", 1) <= 1:
        raise ApiError(400, "temperature: range: 0..1")
    _check_thinking(payload, limit)
    check_messages(payload)


def _check_thinking(payload: Json, limit: int) -> None:
    thinking = payload.get("thinking") or {}
    budget = thinking.get("budget_tokens")
    if thinking.get("type") == "enabled" and not isinstance(budget, int):
        raise ApiError(400, "thinking.enabled.budget_tokens: Field required")
    if isinstance(budget, int) and budget < _MIN_BUDGET:
        raise ApiError(400, f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_MIN_BUDGET}")
    if isinstance(budget, int) and budget >= limit:
        raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if _is_thinking(payload) and payload.get("temperature", 1) != 1:
        raise ApiError(400, "`temperature` may only be set to 1 when thinking is enabled.")
    if _is_thinking(payload) and (payload.get("tool_choice") or {}).get("type") in {"any", "tool"}:
        raise ApiError(400, "Thinking may not be enabled when tool_choice forces tool use.")


def _is_thinking(payload: Json) -> bool:
    return (payload.get("thinking") or {}).get("type") in {"enabled", "adaptive"}


def check_messages(payload: Json) -> None:
    """Raise `ApiError` for the first invalid message."""
    messages = payload.get("messages")
    if not isinstance(messages, list):
        raise ApiError(400, "messages: Field required")
    if not messages:
        raise ApiError(400, "messages: at least one message is required")
    blocks: list[Sequence[Json]] = []
    for index, message in enumerate(messages):
        if message.get("role") not in {"user", "assistant", "system"}:
            raise ApiError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        blocks.append(_blocks_of(message, index))
        _check_signatures(blocks[-1], index)
    for index, current in enumerate(blocks):
        _check_results(blocks[index - 1] if index else (), current, index)
    _check_start_of_thinking(payload, messages, blocks)


def _blocks_of(message: Json, index: int) -> Sequence[Json]:
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list) or not blocks:
        raise ApiError(400, f"messages.{index}: all messages must have non-empty content")
    if any(block.get("type") == "text" and not block.get("text") for block in blocks):
        raise ApiError(400, "messages: text content blocks must be non-empty")
    return blocks


def _check_signatures(blocks: Sequence[Json], index: int) -> None:
    for at, block in enumerate(blocks):
        if block["type"] == "thinking" and block.get("signature") != signature_of(block["thinking"]):
            raise ApiError(400, f"messages.{index}.content.{at}: Invalid `signature` in `thinking` block")
        if block["type"] == "redacted_thinking" and block.get("data") != signature_of("redacted"):
            raise ApiError(400, f"messages.{index}.content.{at}: Invalid `data` in `redacted_thinking` block")


def _check_results(before: Sequence[Json], blocks: Sequence[Json], index: int) -> None:
    """Raise `ApiError` unless the results belong to the calls of the message before, and all calls have one."""
    called = [block["id"] for block in before if block["type"] == "tool_use"]
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if missing := [id_ for id_ in called if id_ not in results]:
        message = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}."
        raise ApiError(400, f"messages.{index - 1}: {message}")
    if stray := [id_ for id_ in results if id_ not in called]:
        message = f"unexpected `tool_use_id` found in `tool_result` blocks: {stray[0]}."
        raise ApiError(400, f"messages.{index}.content.0: {message}")


def _check_start_of_thinking(payload: Json, messages: Sequence[Json], blocks: Sequence[Sequence[Json]]) -> None:
    """Raise `ApiError` if the last call of a tool has lost the reasoning before it."""
    if not _is_thinking(payload) or not any(block["type"] == "tool_result" for block in blocks[-1]):
        return
    index = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
    found = blocks[index][0]["type"]
    if found not in {"thinking", "redacted_thinking"}:
        problem = f"Expected `thinking` or `redacted_thinking`, but found `{found}`."
        raise ApiError(400, f"messages.{index}.content.0.type: {problem} When `thinking` is enabled, a final "
                            "`assistant` message must start with a thinking block.")  # fmt: skip
