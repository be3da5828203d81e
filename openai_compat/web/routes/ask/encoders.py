"""The three ways in which `POST /ask` writes an answer: its own events, plain text, and the AI SDK's message stream."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, ClassVar, Final

from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, FinishReason, ToolCallDelta
from openai_compat.web.sse import DONE, HEADERS, to_event

from .errors import sentence_for, to_ask_error


class StreamEncoder(ABC):
    """Writes one answer in one format, from its first byte to its last."""

    headers: ClassVar[Mapping[str, str]] = HEADERS
    supports_comments: ClassVar[bool] = True
    """Whether the format has room for something that means nothing, to fill a silence with."""
    supports_errors: ClassVar[bool] = True
    """Whether an error can be told within the stream; where it cannot, the connection is broken off."""

    def begin(self) -> bytes:
        """What comes before the first piece."""
        return b""

    @abstractmethod
    def write(self, delta: ChatDelta) -> bytes:
        """A piece of the answer; nothing, where the format has no place for what the delta brings."""

    def end(self, finish_reason: FinishReason | None) -> bytes:
        """What comes after the last piece of an answer that is complete."""
        return b""

    @abstractmethod
    def to_error(self, error: OpenAICompatError) -> bytes:
        """What comes in place of the rest when there is an error."""


class SSEEncoder(StreamEncoder):
    """`sse`: an event for each piece of text, then one with the reason why the answer ends (source: seed 4)."""

    def write(self, delta: ChatDelta) -> bytes:
        text = text_of(delta)
        return to_event({"role": "assistant", "content": text, "finish_reason": None}) if text else b""

    def end(self, finish_reason: FinishReason | None) -> bytes:
        return to_event({"role": "assistant", "content": "", "finish_reason": finish_reason})

    def to_error(self, error: OpenAICompatError) -> bytes:
        return to_event({**to_ask_error(error), "finish_reason": "error"})


class TextEncoder(StreamEncoder):
    """`text`: the text and nothing else, as `useChat({streamProtocol: 'text'})` of version 4 of the AI SDK and its
    `TextStreamChatTransport` of version 5 and later read it.

    `nosniff` because browsers hold plain text back until they have enough of it to guess whether it is something else.
    """

    headers: ClassVar[Mapping[str, str]] = {
        **HEADERS,
        "content-type": "text/plain; charset=utf-8",
        "x-content-type-options": "nosniff",
    }
    supports_comments = False
    supports_errors = False

    def write(self, delta: ChatDelta) -> bytes:
        return text_of(delta).encode("utf-8", "replace")

    def to_error(self, error: OpenAICompatError) -> bytes:
        return b""


_UI_FINISH_REASONS: Final[Mapping[str | None, str]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}


class UIMessageEncoder(StreamEncoder):
    """`ui`: version 1 of the AI SDK's UI message stream (source: `uiMessageChunkSchema` in the npm package `ai`).

    Versions 5.0.0 to 5.0.91 of the package take no key that they do not know, so nothing is sent but what the protocol
    has; `finishReason` came with 5.0.92. `message_id` is the message's name in the page; where the answer goes on with
    the page's last message, it is that message's.
    """

    headers: ClassVar[Mapping[str, str]] = {**HEADERS, "x-vercel-ai-ui-message-stream": "v1"}

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._open_kind: str | None = None
        self._part_count = 0
        self._calls: dict[int, _UICall] = {}

    def begin(self) -> bytes:
        return to_event({"type": "start", "messageId": self._message_id}) + to_event({"type": "start-step"})

    def write(self, delta: ChatDelta) -> bytes:
        data = b""
        if delta.reasoning:
            data = self._say("reasoning", delta.reasoning)
        if text := text_of(delta):
            data += self._say("text", text)
        for call in delta.tool_calls:
            data += self._call(call)
        return data

    def _say(self, kind: str, text: str) -> bytes:
        opening = b"" if kind == self._open_kind else self._close_part() + self._open_part(kind)
        return opening + to_event({"type": f"{kind}-delta", "id": str(self._part_count), "delta": text})

    def _open_part(self, kind: str) -> bytes:
        self._open_kind = kind
        self._part_count += 1
        return to_event({"type": f"{kind}-start", "id": str(self._part_count)})

    def _close_part(self) -> bytes:
        kind, self._open_kind = self._open_kind, None
        return to_event({"type": f"{kind}-end", "id": str(self._part_count)}) if kind else b""

    def _call(self, delta: ToolCallDelta) -> bytes:
        data = b""
        call = self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = _UICall(delta.id or f"call_{delta.index}", delta.name or "")
            data = self._close_part() + call.start()
        return data + call.add(delta.arguments)

    def end(self, finish_reason: FinishReason | None) -> bytes:
        data = self._close_part() + b"".join(call.end() for call in self._calls.values())
        finish = {"type": "finish", "finishReason": _UI_FINISH_REASONS.get(finish_reason, "other")}
        return data + to_event({"type": "finish-step"}) + to_event(finish) + DONE

    def to_error(self, error: OpenAICompatError) -> bytes:
        return to_event({"type": "error", "errorText": sentence_for(error)})


class _UICall:
    """A tool call on its way to the page: its input grows piece by piece and is given once more as a whole."""

    def __init__(self, identifier: str, name: str) -> None:
        self._base = {"toolCallId": identifier, "toolName": name}
        self._arguments: list[str] = []

    def start(self) -> bytes:
        return to_event({"type": "tool-input-start", **self._base})

    def add(self, arguments: str) -> bytes:
        if not arguments:
            return b""
        self._arguments.append(arguments)
        return to_event(
            {"type": "tool-input-delta", "toolCallId": self._base["toolCallId"], "inputTextDelta": arguments}
        )

    def end(self) -> bytes:
        text = "".join(self._arguments)
        try:
            value: Any = json.loads(text or "{}")
        except (ValueError, RecursionError):
            problem = "The model wrote a tool's input that is not valid JSON."
            return to_event({"type": "tool-input-error", **self._base, "input": text, "errorText": problem})
        return to_event({"type": "tool-input-available", **self._base, "input": value})


def text_of(delta: ChatDelta) -> str:
    """What the assistant says; a refusal is said too."""
    return (delta.content or "") + (delta.refusal or "")


def to_blocks(
    writer: StreamEncoder, deltas: Iterator[ChatDelta | Heartbeat], heartbeat_interval: float
) -> Iterator[bytes | Heartbeat]:
    """The answer as bytes. A model that thinks aloud is silent in a format without a place for that."""
    yield writer.begin()
    finish_reason: FinishReason | None = None
    spoke_at = monotonic()
    for delta in deltas:
        if isinstance(delta, Heartbeat):
            yield delta
            continue
        finish_reason = delta.finish_reason or finish_reason
        data = writer.write(delta)
        now = monotonic()
        if data or (heartbeat_interval and now - spoke_at >= heartbeat_interval):
            spoke_at = now
            yield data or HEARTBEAT
    yield writer.end(finish_reason)
