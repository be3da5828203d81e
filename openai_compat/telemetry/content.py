"""Content of calls in the form of OpenTelemetry's conventions, for operators who ask for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openai_compat.core.trace import Trace

from .attributes import Attributes

MAX_CHARS: Final = 65_536
"""Length of one attribute. A longer conversation is cut, and says so."""
CUT: Final = " [cut]"
_TEXT_FIELDS: Final = ("content", "text", "refusal", "output_text", "thinking", "arguments", "partial_json")


def content_attributes(trace: Trace) -> Attributes:
    """Return the messages of a call and its answer as JSON texts."""
    payload = trace.payload or {}
    attributes: Attributes = {"gen_ai.input.messages": _encode(_first_messages(_inputs(payload)))}
    if instructions := payload.get("instructions") or payload.get("system"):
        attributes["gen_ai.system_instructions"] = _encode(_to_parts(instructions))
    if payload.get("tools"):
        attributes["gen_ai.tool.definitions"] = _encode(payload["tools"])
    if trace.answer:
        text = answer_text(b"".join(trace.answer))
        attributes["gen_ai.output.messages"] = _encode([{"role": "assistant", "parts": _to_parts(text)}])
    return attributes


def _first_messages(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the messages that an attribute has room for, and the first one that it has not."""
    messages, size = [], 0
    for message in inputs:
        messages.append(_to_message(message))
        size += len(str(messages[-1]))
        if size > MAX_CHARS:
            break
    return messages


def answer_text(body: bytes) -> str:
    """Return the text of an answer in any of the server's protocols, of which an event stream may be cut."""
    return "".join(_texts_of_answer(body))


def _texts_of_answer(body: bytes) -> Iterator[str]:
    if body.lstrip()[:1] == b"{":
        yield from _whole_texts(_parse(body))
        return
    for line in body.splitlines():
        if line.startswith(b"data:"):
            yield from _delta_texts(_parse(line[5:]))


def _whole_texts(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a complete answer, in the form of any of the server's endpoints."""
    for choice in _objects(answer.get("choices")):
        yield from _texts(choice.get("message") or choice)
    for item in _objects(answer.get("output")):
        yield from _texts(item)
        for part in _objects(item.get("content")):
            yield from _texts(part)
    for block in _objects(answer.get("content")):
        yield from _texts(block)


def _delta_texts(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that one event adds to an answer."""
    for choice in _objects(event.get("choices")):
        yield from _texts(choice.get("delta") or choice)
    delta = event.get("delta")
    if isinstance(delta, str) and str(event.get("type", "")).endswith(".delta"):
        yield delta
    elif isinstance(delta, dict):
        yield from _texts(delta)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a message, an item or a delta, with the arguments of its tool calls."""
    if not isinstance(value, dict):
        return
    for name in _TEXT_FIELDS:
        if isinstance(value.get(name), str):
            yield value[name]
    for call in _objects(value.get("tool_calls")):
        yield from _texts(call.get("function"))


def _inputs(payload: Mapping[str, Any]) -> Sequence[Any]:
    inputs = payload.get("messages") or payload.get("input") or payload.get("prompt") or []
    return inputs if isinstance(inputs, list) else [inputs]


def _to_message(message: Any) -> dict[str, Any]:
    """Return one message of the input. A text of its own is the user's."""
    if not isinstance(message, dict):
        return {"role": "user", "parts": _to_parts(message)}
    content = message.get("content", message.get("output", message.get("arguments")))
    return {"role": message.get("role", message.get("type", "user")), "parts": _to_parts(content)}


def _to_parts(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a content. Images, sounds and files are named and left out."""
    if isinstance(content, str):
        return [{"type": "text", "content": content[:MAX_CHARS]}]
    parts = []
    for part in _objects(content):
        text = part.get("text")
        kind = str(part.get("type", "text"))
        parts.append({"type": "text", "content": text[:MAX_CHARS]} if isinstance(text, str) else {"type": kind})
    return parts


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`, an empty one for an end mark and for what is cut."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _encode(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + CUT
