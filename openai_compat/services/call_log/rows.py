"""Rows of the log of calls, made of requests that have ended."""

from __future__ import annotations

import json
from typing import Any, Final

from openai_compat.accounts.price_book import PriceBook
from openai_compat.core.observation import MAX_KEPT_BYTES, AttemptRecord, EndedRequest
from openai_compat.core.secret_masking import redact, redact_text
from openai_compat.core.types import MAX_TOKENS
from openai_compat.services.inference_call import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    MESSAGES_PATH,
    RESPONSES_PATH,
)

MAX_NAME_CHARS: Final = 200
UNAUTHORIZED: Final = 401
OPERATIONS: Final = {
    **{path: path for path in (CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH, MESSAGES_PATH, RESPONSES_PATH)},
    **{path: path for path in ("messages/count_tokens", "responses/input_tokens", "responses/compact")},
    "create_chat_completion": CHAT_PATH,
    "create_completion": COMPLETIONS_PATH,
    "create_embeddings": EMBEDDINGS_PATH,
    "create_message": MESSAGES_PATH,
    "create_response": RESPONSES_PATH,
    "ask": CHAT_PATH,
    "count_tokens": "messages/count_tokens",
    "count_input_tokens": "responses/input_tokens",
    "compact": "responses/compact",
    "proxy": "passthrough",
}
"""Path of a call, or the view of a request that was rejected before its call began -> operation in the log."""


def is_logged(ended: EndedRequest) -> bool:
    """Return True for calls of models and of the passthrough.

    Requests without a valid key are left out, because anybody could fill the log with them.
    """
    return ended.operation.lstrip("/") in OPERATIONS and ended.status != UNAUTHORIZED


def to_row(id: str, ended_at: float, ended: EndedRequest, prices: PriceBook) -> dict[str, Any]:
    """Return the row of a call that ended at the Unix time `ended_at`."""
    usage = ended.usage
    target = ended.served_by or ended.model
    price = None if ended.served is None or usage is None else prices.find(ended.served, target)
    return {
        "id": id,
        "at_ms": round((ended_at - ended.ended_at + ended.started_at) * 1000),
        "request_id": ended.request_id,
        "operation": OPERATIONS[ended.operation.lstrip("/")],
        "model": _to_name(ended.model),
        "target": _to_name(target),
        "kind": ended.kind,
        "status": ended.status,
        "error": None if ended.error is None else _to_name(ended.error),
        "is_failed": ended.status >= 400 or ended.error is not None,
        "key_id": ended.key_id,
        "key_name": ended.key_name,
        "project_id": ended.project_id,
        "is_streamed": ended.is_streamed,
        "first_token_ms": _since(ended.started_at, ended.first_token_at),
        "duration_ms": _since(ended.started_at, ended.ended_at),
        "input_tokens": None if usage is None else min(usage.prompt_tokens, MAX_TOKENS),
        "cached_tokens": None if usage is None else min(usage.cached_tokens, MAX_TOKENS),
        "cache_write_tokens": None if usage is None else min(usage.cache_write_tokens, MAX_TOKENS),
        "output_tokens": None if usage is None else min(usage.completion_tokens, MAX_TOKENS),
        "reasoning_tokens": None if usage is None else min(usage.reasoning_tokens, MAX_TOKENS),
        "cost_nano": None if price is None or usage is None else min(price.cost(usage), MAX_TOKENS),
        "adapted": _to_name(ended.adapted),
        "attempts": json.dumps([_to_attempt(ended, attempt) for attempt in ended.attempts]),
    }


def to_bodies(id: str, ended: EndedRequest) -> dict[str, str] | None:
    """Return the bodies of a call with secrets masked, or None if they were not kept."""
    if ended.bodies is None:
        return None
    return {
        "call_id": id,
        "request": _mask(ended.bodies.request),
        "answer": _mask(b"".join(ended.bodies.answer)[:MAX_KEPT_BYTES]),
    }


def _mask(body: bytes) -> str:
    """Return the text of a body, of which a longer one was cut off, so that it is no JSON any more."""
    text = body.decode("utf-8", "replace")
    is_json = len(body) < MAX_KEPT_BYTES and text.lstrip().startswith("{")
    return (redact(body) if is_json else redact_text(text)).replace("\0", "�")


def _to_name(text: str) -> str:
    """Return a text that may be a client's, without the character that PostgreSQL refuses."""
    return text[:MAX_NAME_CHARS].replace("\0", "�").encode("utf-8", "replace").decode()


def _since(start: float, end: float | None) -> int | None:
    return None if end is None else max(round((end - start) * 1000), 0)


def _to_attempt(ended: EndedRequest, attempt: AttemptRecord) -> dict[str, Any]:
    """Return an attempt. The last one has the error of the request, unless it has its own."""
    is_cause = ended.is_failure and attempt is ended.attempts[-1]
    error = attempt.error or (ended.error if is_cause else None)
    return {
        "target": attempt.target,
        "start_ms": _since(ended.started_at, attempt.started_at),
        "first_byte_ms": _since(ended.started_at, attempt.first_byte_at),
        "end_ms": _since(ended.started_at, attempt.ended_at or ended.ended_at),
        "error": None if error is None else _to_name(error),
    }
