"""A complete answer as the chunks of a stream, for upstreams that ignore the parameter `stream`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .event_stream import JSON


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
