"""Conversion between complete answers and the chunks of a stream, for upstreams that ignore the parameter `stream`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from openai_compat.backends.parsing.tool_calls import ToolCallParser
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import ToolCallDelta

from .event_stream import JSON
from .openai_objects import new_id

_TEXT_KEYS: Final = frozenset({"content", "refusal", "reasoning_content", "reasoning", "thinking"})
"""Keys of a delta whose values are parts of one text. Of any other string the last one counts."""
_CALL_KEYS: Final = frozenset({"index", "id", "type", "function", "custom"})


def to_chunks(completion: Mapping[str, Any], *, includes_usage: bool) -> Iterator[JSON]:
    """Yield chunks that carry the same answer, and last the usage if the client asked for it.

    A text completion is its own chunk. A chat completion gives two for each choice: the message, and the finish reason.
    """
    frame = {key: value for key, value in completion.items() if key not in {"choices", "usage"}}
    if completion.get("object") == "chat.completion":
        frame["object"] = "chat.completion.chunk"
    usage = {"usage": None} if includes_usage else {}
    for choice in completion.get("choices") or []:
        for part in _split(choice):
            yield {**frame, "choices": [part], **usage}
    if includes_usage:
        yield {**frame, "choices": [], "usage": completion.get("usage")}


def _split(choice: JSON) -> Iterator[JSON]:
    message = choice.get("message")
    if not isinstance(message, dict):
        yield choice
        return
    delta = {"role": "assistant", **message}
    if message.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]
    rest = {key: value for key, value in choice.items() if key not in {"message", "finish_reason"}}
    yield {**rest, "delta": delta, "finish_reason": None}
    yield {**rest, "delta": {}, "finish_reason": choice.get("finish_reason"), "logprobs": None}


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
            index = choice["index"] if isinstance(choice.get("index"), int) else 0
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
        self._function_parser = ToolCallParser()
        self._function_call: _Call | None = None
        self._finish_reason: Any = None
        self._logprobs: JSON | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        delta, text = choice.get("delta"), choice.get("text")
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
        choice: JSON = {"index": index, "finish_reason": self._finish_reason, "logprobs": self._logprobs}
        if self._text is not None:
            return {**choice, "text": "".join(self._text)}
        message = {"role": "assistant", "content": None, **self._message}
        message |= {key: _join(parts) if key in _TEXT_KEYS else parts for key, parts in self._parts.items()}
        if calls := self._calls.to_list():
            message["tool_calls"] = calls
        if self._function_call is not None:
            message["function_call"] = self._function_call.to_function()
        return {**choice, "message": message}


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
    return UpstreamInvalidResponseError(f"The upstream's stream has an unreadable {part}.")
