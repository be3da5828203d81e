"""Conversion between complete answers and the chunks of a stream, for upstreams that ignore the parameter `stream`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from openai_compat.backends.parsing.tool_calls import ToolCallParser
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import ToolCallDelta

from .event_stream import JSON
from .openai_objects import join_audio, new_id
from .sse_events import has_content

log = logging.getLogger(__name__)

_TEXT_KEYS: Final = frozenset({"content", "refusal", "reasoning_content", "reasoning", "thinking"})
"""Keys of a delta whose values are parts of one text. Of any other string the last one counts."""
_CALL_KEYS: Final = frozenset({"index", "id", "type", "function", "custom"})


def check_completion(completion: Mapping[str, Any]) -> None:
    """Check that a complete answer can be sent as chunks. It is the counterpart of priming an upstream's stream.

    Raises:
        UpstreamInvalidResponseError: a choice cannot be read, or no choice has content or a finish reason.
    """
    messages = []
    choices = completion.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict | None):
            raise _unreadable("choice")
        message = choice.get("message") or {}
        calls = message.get("tool_calls") or []
        if not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise _unreadable("tool call")
        messages.append(message)
    if not has_content(completion) and not any(map(_is_filled, messages)):
        raise UpstreamInvalidResponseError("The upstream's answer has no content.")


def _is_filled(message: JSON) -> bool:
    return any(value for name, value in message.items() if name != "role")


def to_chunks(completion: Mapping[str, Any], *, includes_usage: bool) -> Iterator[JSON]:
    """Yield chunks that carry the same answer, and last the usage if the client asked for it.

    A text completion is its own chunk. A chat completion gives two for each choice: the message, and the finish reason.
    The completion must have passed `check_completion`.
    """
    frame = {key: value for key, value in completion.items() if key not in {"choices", "usage"}}
    if completion.get("object") == "chat.completion":
        frame["object"] = "chat.completion.chunk"
    usage = {"usage": None} if includes_usage else {}
    for index, choice in enumerate(completion.get("choices") or []):
        for part in _split({"index": index, **choice}):
            yield {**frame, "choices": [part], **usage}
    if includes_usage:
        yield {**frame, "choices": [], "usage": completion.get("usage")}


def _split(choice: JSON) -> Iterator[JSON]:
    message = choice.get("message") or {}
    finish_reason = choice.get("finish_reason") or _missing_finish_reason(message)
    if "text" in choice or "delta" in choice:
        yield {**choice, "finish_reason": finish_reason}
        return
    delta = {"role": "assistant", **message}
    if message.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]
    rest = {key: value for key, value in choice.items() if key not in {"message", "finish_reason"}}
    yield {**rest, "delta": delta, "finish_reason": None}
    yield {**rest, "delta": {}, "finish_reason": finish_reason, "logprobs": None}


def _missing_finish_reason(message: JSON) -> str:
    """Return the finish reason of an answer that ended properly but has none, as translated answers get it."""
    log.info("the upstream's answer was complete but had no finish reason")
    if message.get("function_call"):
        return "function_call"
    return "tool_calls" if message.get("tool_calls") else "stop"


class CompletionCollector:
    """The completion made of a stream's chunks, for upstreams that stream although `stream` was not set."""

    def __init__(self) -> None:
        self._frame: JSON = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None

    def add(self, chunk: JSON) -> JSON:
        """Add one chunk, and return it. Chunks come in their order.

        Raises:
            UpstreamInvalidResponseError: a choice or a delta cannot be read.
        """
        for key, value in chunk.items():
            if key not in {"choices", "usage"} and not self._frame.get(key):
                self._frame[key] = value
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise _unreadable("choice")
            index = choice.get("index") or 0
            if not isinstance(index, int):
                raise _unreadable("index")
            if index not in self._choices:
                self._choices[index] = _Choice()
            self._choices[index].add(choice)
        return chunk

    def to_completion(self) -> JSON:
        """Return the completion of all chunks."""
        frame = dict(self._frame)
        if frame.get("object") == "chat.completion.chunk":
            frame["object"] = "chat.completion"
        choices = [self._choices[index].to_choice(index) for index in sorted(self._choices)]
        return {**frame, "choices": choices, **({"usage": self._usage} if self._usage else {})}


class _Choice:
    """One choice, collected from its chunks. Texts are joined once, at the end."""

    def __init__(self) -> None:
        self._text: list[str] | None = None
        self._message: JSON = {}
        self._parts: dict[str, list[Any]] = {}
        self._calls = _ToolCalls()
        self._audio: list[JSON] = []
        self._function_parser = ToolCallParser()
        self._function_call: _Call | None = None
        self._finish_reason: Any = None
        self._logprobs: JSON | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        delta, text = choice.get("delta", choice.get("message")), choice.get("text")
        if isinstance(delta, dict):
            self._add_delta(delta)
        elif delta is not None or not isinstance(text, str | None):
            raise _unreadable("delta")
        elif text is not None:
            self._text = [] if self._text is None else self._text
            self._text.append(text)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if isinstance(logprobs := choice.get("logprobs"), dict):
            self._add_logprobs(logprobs)

    def _add_delta(self, delta: JSON) -> None:
        for key, value in delta.items():
            if key == "role" or value is None:
                continue
            if key == "tool_calls":
                self._calls.add(value)
            elif key == "function_call":
                self._add_function_call(delta)
            elif key == "audio" and isinstance(value, dict):
                self._audio.append(value)
            elif isinstance(value, list):
                self._parts.setdefault(key, []).extend(value)
            elif key not in _TEXT_KEYS:
                self._message[key] = value
            elif isinstance(value, str):
                self._parts.setdefault(key, []).append(value)
            else:
                raise _unreadable(f"delta, because its '{key}' is no text")

    def _add_function_call(self, delta: JSON) -> None:
        """Add a part of the deprecated `function_call`, of which a message has one."""
        if not isinstance(delta["function_call"], dict):
            raise _unreadable("function call")
        for part in self._function_parser.read({"function_call": delta["function_call"]}):
            self._function_call = self._function_call or _Call()
            self._function_call.add(part)

    def _add_logprobs(self, logprobs: JSON) -> None:
        known = self._logprobs = {} if self._logprobs is None else self._logprobs
        for key, value in logprobs.items():
            if isinstance(value, list) and isinstance(known.get(key), list):
                known[key].extend(value)
            elif value is not None or key not in known:
                known[key] = list(value) if isinstance(value, list) else value

    def to_choice(self, index: int) -> JSON:
        """Return the choice. A finish reason that is missing is added to content."""
        choice: JSON = {"index": index, "logprobs": self._logprobs}
        if self._text is not None:
            text = "".join(self._text)
            reason = self._finish_reason or (_missing_finish_reason({}) if text else None)
            return {**choice, "text": text, "finish_reason": reason}
        message = {"role": "assistant", "content": None, **self._message}
        message |= {key: _join(parts) if key in _TEXT_KEYS else parts for key, parts in self._parts.items()}
        if self._audio:
            message["audio"] = join_audio(self._audio)
        if calls := self._calls.to_list():
            message["tool_calls"] = calls
        if self._function_call is not None:
            message["function_call"] = self._function_call.to_function()
        reason = self._finish_reason or (_missing_finish_reason(message) if _is_filled(message) else None)
        return {**choice, "message": message, "finish_reason": reason}


class _ToolCalls:
    """The tool calls of one choice, collected from their deltas."""

    def __init__(self) -> None:
        self._parser = ToolCallParser()
        self._calls: dict[int, _Call] = {}
        self._extras: JSON = {}

    def add(self, deltas: Any) -> None:
        """Add the deltas of one chunk, repaired by `ToolCallParser`. What it does not know is kept as it is."""
        if not isinstance(deltas, list):
            raise _unreadable("tool call")
        for delta in deltas:
            if not isinstance(delta, dict):
                raise _unreadable("tool call")
            self._extras |= {key: value for key, value in delta.items() if key not in _CALL_KEYS}
            if isinstance(custom := delta.get("custom"), dict):
                self._extras["type"] = "custom"
                function = {"name": custom.get("name"), "arguments": custom.get("input")}
                delta = {"index": delta.get("index"), "id": delta.get("id"), "function": function}
            for part in self._parser.read({"tool_calls": [delta]}):
                call = self._calls.setdefault(part.index, _Call())
                call.add(part)
                call.extras |= self._extras
                self._extras = {}

    def to_list(self) -> list[JSON]:
        for part in self._parser.read_end():
            self._calls.setdefault(part.index, _Call()).add(part)
        return [self._calls[number].to_object() for number in sorted(self._calls)]


class _Call:
    """One tool call, collected from its deltas. It gets an id if the upstream gives none."""

    def __init__(self) -> None:
        self.extras: JSON = {}
        self._id: str | None = None
        self._name: str | None = None
        self._arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        self._arguments.append(delta.arguments)

    def to_function(self) -> JSON:
        return {"name": self._name or "", "arguments": "".join(self._arguments)}

    def to_object(self) -> JSON:
        function = self.to_function()
        call: JSON = {"id": self._id or new_id("call_"), "type": "function", **self.extras}
        if call["type"] == "custom":
            return {**call, "custom": {"name": function["name"], "input": function["arguments"]}}
        return {**call, "function": function}


def _join(parts: list[Any]) -> Any:
    """Return the text of strings, or the list of other parts, in which text between them is a part of its own."""
    groups = [(is_text, list(group)) for is_text, group in groupby(parts, lambda part: isinstance(part, str))]
    joined = [["".join(group)] if is_text else group for is_text, group in groups]
    if len(joined) == 1:
        return joined[0][0] if groups[0][0] else joined[0]
    return [{"type": "text", "text": part} if isinstance(part, str) else part for group in joined for part in group]


def _unreadable(part: str) -> UpstreamInvalidResponseError:
    return UpstreamInvalidResponseError(f"The upstream's answer has an unreadable {part}.")
