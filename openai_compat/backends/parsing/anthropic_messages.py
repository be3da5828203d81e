"""Parser for the messages of Anthropic's API and the events of their streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from openai_compat.core.anthropic import FINISH_REASONS
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import ChatDelta, FinishReason, JSONObject, ToolCallDelta, Usage, to_token_count

from .surrogates import HalfJoiner

REASONING_FORMAT: Final = "anthropic-claude-v1"
"""Name of the format of Claude's reasoning details, as OpenRouter calls it."""
PAUSED: Final = "pause_turn"
"""Reason of an answer that stopped in the middle of a tool of Anthropic's own."""
_USAGE_KEYS: Final = (
    "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens", "thinking_tokens",
)  # fmt: skip


class UsageReader:
    """Reader of the counts in the events of one message. Those of a later event are totals and replace earlier ones."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def read(self, usage: Any) -> None:
        """Keep the counts of a usage object. Anything else is ignored."""
        if not isinstance(usage, dict):
            return
        details = usage.get("output_tokens_details")
        found = {**usage, **(details if isinstance(details, dict) else {})}
        self._counts |= {key: count for key in _USAGE_KEYS if (count := to_token_count(found.get(key))) is not None}

    def to_usage(self) -> Usage | None:
        """Return the usage, or None if it is unknown. Anthropic's input tokens do not include those of the cache."""
        if "input_tokens" not in self._counts:
            return None
        prompt, cached, written, completion, thinking = (self._counts.get(key, 0) for key in _USAGE_KEYS)
        return Usage(prompt + cached + written, completion, cached, thinking, written)


class MessageParser:
    """Parser for one message. It keeps the open block, the usage and the reason for the end.

    Blocks come one after the other. Blocks of unknown types, such as the results of Anthropic's own tools, have no
    counterpart in a chat and are skipped.
    """

    def __init__(self) -> None:
        self.has_content = False
        self.stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._usage = UsageReader()
        self._block: JSONObject = {}
        self._thoughts: list[str] = []
        self._signature = ""
        self._calls = 0
        self._details = 0
        self._has_arguments = False
        self._halves = HalfJoiner()

    @property
    def is_finished(self) -> bool:
        """True if the reason for the end is known, after which only the end mark follows."""
        return self.stop_reason is not None

    def read_message(self, message: JSONObject) -> Iterator[ChatDelta]:
        """Yield the deltas of a complete message.

        Raises:
            UpstreamInvalidResponseError: The value is no message.
        """
        content = message.get("content")
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise UpstreamInvalidResponseError("The upstream's response is not a message: it has no content.")
        self._usage.read(message.get("usage"))
        for block in content:
            yield from self._start_block(block)
            yield from self._stop_block()
        self._read_ending(message)
        if not self.is_finished:
            raise UpstreamInvalidResponseError("The upstream's message has no stop_reason, so it is not complete.")
        yield self.read_end()

    def read(self, event: JSONObject) -> Sequence[ChatDelta]:
        """Return the deltas of one event. Unknown events have none.

        Raises:
            UpstreamInvalidResponseError: The event lacks what its type requires.
        """
        match event.get("type"):
            case "content_block_delta":
                delta = self._read_delta(_object_at(event, "delta"))
                return () if delta is None else (delta,)
            case "content_block_start":
                return self._start_block(_object_at(event, "content_block"))
            case "content_block_stop":
                return self._stop_block()
            case "message_start":
                self._usage.read(_object_at(event, "message").get("usage"))
            case "message_delta":
                self._usage.read(event.get("usage"))
                self._read_ending(_object_at(event, "delta"))
        return ()

    def read_end(self) -> ChatDelta:
        """Return the last delta."""
        return ChatDelta(
            finish_reason=self._to_finish_reason(), usage=self._usage.to_usage(), stop_sequence=self._stop_sequence
        )

    def _start_block(self, block: JSONObject) -> Sequence[ChatDelta]:
        self._block = block
        self._thoughts, self._signature, self._has_arguments = [], "", False
        match block.get("type"):
            case "text":
                started = self._read_delta({"type": "text_delta", "text": block.get("text")})
                citations = block.get("citations") or ()
                cited = [self._read_delta({"type": "citations_delta", "citation": each}) for each in citations]
                return [delta for delta in (started, *cited) if delta is not None]
            case "thinking":
                self._signature = str(block.get("signature") or "")
                started = self._read_delta({"type": "thinking_delta", "thinking": block.get("thinking")})
                return [] if started is None else [started]
            case "redacted_thinking":
                return [self._to_details({"type": "reasoning.encrypted", "data": block.get("data")})]
            case "tool_use":
                self.has_content = True
                self._calls += 1
                call = ToolCallDelta(self._calls - 1, id=_text_at(block, "id"), name=_text_at(block, "name"))
                return [ChatDelta(tool_calls=(call,))]
        return ()

    def _stop_block(self) -> Sequence[ChatDelta]:
        block, self._block = self._block, {}
        if block.get("type") == "thinking" and self._signature:
            text = "".join(self._thoughts)
            return [self._to_details({"type": "reasoning.text", "text": text, "signature": self._signature})]
        if block.get("type") == "tool_use" and not self._has_arguments:
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            return [ChatDelta(tool_calls=(ToolCallDelta(self._calls - 1, arguments),))]
        return ()

    def _read_delta(self, delta: JSONObject) -> ChatDelta | None:
        match delta.get("type"):
            case "text_delta":
                if text := self._halves.join("content", _text_at(delta, "text")):
                    self.has_content = True
                    return ChatDelta(text)
            case "thinking_delta":
                if text := self._halves.join("reasoning", _text_at(delta, "thinking")):
                    self.has_content = True
                    self._thoughts.append(text)
                    return ChatDelta(reasoning=text)
            case "signature_delta":
                self._signature += _text_at(delta, "signature")
            case "input_json_delta":
                return self._read_arguments(_text_at(delta, "partial_json"))
            case "citations_delta":
                return _to_annotation(_object_at(delta, "citation"))
        return None

    def _read_arguments(self, text: str) -> ChatDelta | None:
        if not text or self._block.get("type") != "tool_use":  # arguments of Anthropic's own tools are not for clients
            return None
        self._has_arguments = True
        return ChatDelta(tool_calls=(ToolCallDelta(self._calls - 1, self._halves.join("arguments", text)),))

    def _to_details(self, details: JSONObject) -> ChatDelta:
        self.has_content = True
        self._details += 1
        return ChatDelta(reasoning_details=({**details, "format": REASONING_FORMAT, "index": self._details - 1},))

    def _read_ending(self, ending: JSONObject) -> None:
        if isinstance(reason := ending.get("stop_reason"), str):
            self.stop_reason = reason
        if isinstance(sequence := ending.get("stop_sequence"), str):
            self._stop_sequence = sequence

    def _to_finish_reason(self) -> FinishReason:
        """Return OpenAI's reason. A paused answer is not complete, and an unknown reason counts as `stop`.

        Clients wait for the calls of `tool_calls`, so it is not the reason without any.
        """
        if self.stop_reason == PAUSED:
            return "length"
        reason = FINISH_REASONS.get(self.stop_reason or "", "stop")
        if reason in ("stop", "tool_calls"):
            return "tool_calls" if self._calls else "stop"
        return reason


def _to_annotation(citation: JSONObject) -> ChatDelta | None:
    """Return a citation of a web page. Those of documents have no counterpart in a chat."""
    if not isinstance(citation.get("url"), str):
        return None
    found = {"url": citation["url"], "title": citation.get("title") or "", "start_index": 0, "end_index": 0}
    return ChatDelta(annotations=({"type": "url_citation", "url_citation": found},))


def _object_at(value: JSONObject, key: str) -> JSONObject:
    found = value.get(key)
    if not isinstance(found, dict):
        raise UpstreamInvalidResponseError(f"The upstream sent an event whose '{key}' is not an object.")
    return found


def _text_at(value: JSONObject, key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str | None):
        raise UpstreamInvalidResponseError(f"The upstream sent a block whose '{key}' is no text.")
    return found or ""
