"""Conversion between complete answers and the chunks of a stream, for upstreams that ignore the parameter `stream`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .event_stream import JSON
from .sse_events import choices_of


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
        self._choices: dict[int, JSON] = {}
        self._usage: Any = None

    def add(self, chunk: JSON) -> JSON:
        """Add one chunk, and return it. Chunks come in their order."""
        self._frame = self._frame or {key: value for key, value in chunk.items() if key not in {"choices", "usage"}}
        self._usage = chunk.get("usage") or self._usage
        for choice in choices_of(chunk):
            index = choice["index"] if isinstance(choice.get("index"), int) else 0
            known = self._choices.setdefault(index, {"index": index, "finish_reason": None, "logprobs": None})
            if isinstance(choice.get("delta"), dict):
                _merge_delta(known.setdefault("message", {"role": "assistant", "content": None}), choice["delta"])
            elif isinstance(choice.get("text"), str):
                known["text"] = known.get("text", "") + choice["text"]
            known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]
            known["logprobs"] = _join_logprobs(known["logprobs"], choice.get("logprobs"))
        return chunk

    def to_completion(self) -> JSON:
        """Return the completion of all chunks."""
        frame = dict(self._frame)
        if frame.get("object") == "chat.completion.chunk":
            frame["object"] = "chat.completion"
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**frame, "choices": choices, **({"usage": self._usage} if self._usage else {})}


def _merge_delta(message: JSON, delta: Mapping[str, Any]) -> None:
    for key, value in delta.items():
        if key == "role" or value is None:
            continue
        known = message.get(key)
        if key == "tool_calls" and isinstance(value, list):
            for call in value:
                _merge_call(message.setdefault("tool_calls", []), call)
        elif (isinstance(value, str) and isinstance(known, str)) or (
            isinstance(value, list) and isinstance(known, list)
        ):
            message[key] = known + value  # type: ignore[operator]
        else:
            message[key] = value


def _merge_call(calls: list[JSON], delta: Mapping[str, Any]) -> None:
    position = delta.get("index") if isinstance(delta.get("index"), int) else max(len(calls) - 1, 0)
    while len(calls) <= (position or 0):
        calls.append({})
    call = calls[position or 0]
    for key, value in delta.items():
        if isinstance(value, dict):
            nested = call.setdefault(key, {})
            for name, text in value.items():
                nested[name] = nested.get(name, "") + text if isinstance(text, str) and name != "name" else text
        elif key != "index" and value is not None:
            call[key] = value


def _join_logprobs(known: Any, added: Any) -> Any:
    if not isinstance(known, dict) or not isinstance(added, dict):
        return added or known
    joined = dict(known)
    for key, value in added.items():
        joined[key] = known[key] + value if isinstance(known.get(key), list) and isinstance(value, list) else value
    return joined
