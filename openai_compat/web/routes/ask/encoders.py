"""Stream encoders of `POST /ask` for its own events, plain text, and the AI SDK's message stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from openai_compat.backends.parsing.json_check import parse_strict
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import ChatDelta, FinishReason, ToolCallDelta
from openai_compat.services.sse_events import DONE, encode_deltas, to_event
from openai_compat.web.sse import HEADERS

from .errors import to_ask_error, user_message


class StreamEncoder(ABC):
    """An encoder of one answer, from its first byte to its last."""

    headers: ClassVar[Mapping[str, str]] = HEADERS
    supports_comments: ClassVar[bool] = True
    """True if the format has comments, which fill idle gaps."""
    supports_errors: ClassVar[bool] = True
    """True if the format can carry an error. Otherwise the connection is reset."""
    has_begun = False
    """True if a target has begun to answer."""
    finish_reason: FinishReason | None = None

    def begin(self) -> bytes:
        """Return what precedes the first delta."""
        return b""

    def add(self, delta: ChatDelta) -> bytes:
        """Return one encoded delta, and keep its finish reason."""
        self.finish_reason = delta.finish_reason or self.finish_reason
        return self.write(delta)

    @abstractmethod
    def write(self, delta: ChatDelta) -> bytes:
        """Return one encoded delta, empty if the format cannot carry it."""

    def end(self, finish_reason: FinishReason | None) -> bytes:
        """Return what follows the last delta of a complete answer."""
        return b""

    @abstractmethod
    def to_error(self, error: OpenAICompatError) -> bytes:
        """Return what replaces the rest of the answer after an error."""


class SSEEncoder(StreamEncoder):
    """The format `sse`, one event for each text delta and one with the finish reason.

    Source: the documentation of the `/ask` backend that this endpoint replaces.
    """

    def write(self, delta: ChatDelta) -> bytes:
        text = text_of(delta)
        return to_event({"role": "assistant", "content": text, "finish_reason": None}) if text else b""

    def end(self, finish_reason: FinishReason | None) -> bytes:
        return to_event({"role": "assistant", "content": "", "finish_reason": finish_reason})

    def to_error(self, error: OpenAICompatError) -> bytes:
        return to_event({**to_ask_error(error), "finish_reason": "error"})


class TextEncoder(StreamEncoder):
    """The format `text`, the text and nothing else.

    `useChat({streamProtocol: 'text'})` of the AI SDK's version 4 and `TextStreamChatTransport` of later ones read it.
    Without `nosniff` browsers buffer plain text until they have enough of it to guess its type.
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
    """The format `ui`, version 1 of the AI SDK's UI message stream.

    Source: `uiMessageChunkSchema` in the npm package `ai`. Its versions 5.0.0 to 5.0.91 reject unknown keys, so only
    keys of the protocol are sent. `finishReason` exists since 5.0.92. `message_id` is the message's id in the page. An
    answer that continues the page's last message has that message's id.
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
            data = self._write_part("reasoning", delta.reasoning)
        if text := text_of(delta):
            data += self._write_part("text", text)
        for call in delta.tool_calls:
            data += self._write_call(call)
        return data

    def _write_part(self, kind: str, text: str) -> bytes:
        opening = b"" if kind == self._open_kind else self._close_part() + self._open_part(kind)
        return opening + to_event({"type": f"{kind}-delta", "id": str(self._part_count), "delta": text})

    def _open_part(self, kind: str) -> bytes:
        self._open_kind = kind
        self._part_count += 1
        return to_event({"type": f"{kind}-start", "id": str(self._part_count)})

    def _close_part(self) -> bytes:
        kind, self._open_kind = self._open_kind, None
        return to_event({"type": f"{kind}-end", "id": str(self._part_count)}) if kind else b""

    def _write_call(self, delta: ToolCallDelta) -> bytes:
        data = b""
        call = self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = _UICall(delta.id or f"call_{delta.index}", delta)
            data = self._close_part() + call.start()
        return data + call.add(delta.arguments)

    def end(self, finish_reason: FinishReason | None) -> bytes:
        data = self._close_part() + b"".join(call.end() for call in self._calls.values())
        finish = {"type": "finish", "finishReason": _UI_FINISH_REASONS.get(finish_reason, "other")}
        return data + to_event({"type": "finish-step"}) + to_event(finish) + DONE

    def to_error(self, error: OpenAICompatError) -> bytes:
        return to_event({"type": "error", "errorText": user_message(error)})


class _UICall:
    """A tool call in progress. Its input is sent in deltas and once more complete. That of a custom tool is text."""

    def __init__(self, identifier: str, first: ToolCallDelta) -> None:
        self._base = {"toolCallId": identifier, "toolName": first.name or ""}
        self._is_text = first.type == "custom"
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
            value: Any = text if self._is_text else parse_strict(text or "{}")
        except (ValueError, RecursionError):
            problem = "The model wrote tool input that is not valid JSON."
            return to_event({"type": "tool-input-error", **self._base, "input": text, "errorText": problem})
        return to_event({"type": "tool-input-available", **self._base, "input": value})


def text_of(delta: ChatDelta) -> str:
    """Return the delta's text, that of a refusal included."""
    return (delta.content or "") + (delta.refusal or "")


def encode_answer(
    encoder: StreamEncoder, deltas: Iterator[ChatDelta | Heartbeat], heartbeat_interval: float
) -> Iterator[bytes | Heartbeat]:
    """Yield the answer as bytes, which the encoder may have begun already.

    Deltas that the format cannot carry, such as reasoning, count as idle time.
    """
    if not encoder.has_begun:
        encoder.has_begun = True
        yield encoder.begin()
    yield from encode_deltas(deltas, encoder.add, heartbeat_interval)
    yield encoder.end(encoder.finish_reason)
