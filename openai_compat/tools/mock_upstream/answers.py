"""Healthy answers, built from the request body and divided into parts that are sent one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

from .chat import chat_objects
from .completions import completion_objects
from .embeddings import embedding_objects
from .errors import ApiError, Json
from .messages import count_objects, message_objects
from .options import Options
from .responses import response_objects

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
RESPONSES = "responses"
MESSAGES = "messages"
COUNT_TOKENS = "messages/count_tokens"
OBJECTS_AT = {
    "chat/completions": chat_objects,
    "completions": completion_objects,
    "embeddings": embedding_objects,
    RESPONSES: response_objects,
    MESSAGES: message_objects,
    COUNT_TOKENS: count_objects,
}


@dataclass(frozen=True)
class MockAnswer:
    """A healthy answer before it is delivered or corrupted."""

    endpoint: str
    payload: Json
    """The parsed request body."""
    objects: tuple[Json, ...]
    """The chunks of a stream, or the single object of a non-streaming answer."""
    usage: Json
    options: Options
    is_stream: bool

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return SSE_TYPE if self.is_stream else JSON_TYPE

    @property
    def has_done(self) -> bool:
        """True if the stream ends with `[DONE]`. The last event of a response or of a message is its end."""
        return self.endpoint not in {RESPONSES, MESSAGES}

    @cached_property
    def parts(self) -> tuple[bytes, ...]:
        """The events of a stream with its end mark, or the four quarters of a JSON body."""
        if self.is_stream:
            return (*map(to_event, self.objects), *([DONE] if self.has_done else []))
        body = json.dumps(self.objects[0], indent=2, ensure_ascii=False).encode("utf-8", "replace")
        quarter = len(body) // 4 + 1
        return tuple(body[start : start + quarter] for start in range(0, len(body), quarter))

    @property
    def parts_before_fault(self) -> tuple[bytes, ...]:
        """The parts that are sent before a fault in the middle."""
        count = self.options.after if self.options.after >= 0 else len(self.parts) // 2
        return self.parts[:count]

    def edited(self, edit: Callable[[list[Json]], list[Json]]) -> MockAnswer:
        """Return a copy of the answer with the objects that `edit` returns for a copy of the present ones."""
        return replace(self, objects=tuple(edit(deepcopy(list(self.objects)))))


def to_event(chunk: Json) -> bytes:
    """Return the server-sent event of a chunk, or of an event with a `type`."""
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    name = f"event: {chunk['type']}\n".encode() if "type" in chunk else b""
    return name + b"data: " + text.encode("utf-8", "replace") + b"\n\n"


def build_answer(endpoint: str, payload: Json, model: str, options: Options) -> MockAnswer:
    """Return the answer of an endpoint.

    Raises:
        ApiError: the request is invalid.
    """
    is_stream = bool(payload.get("stream")) and endpoint not in {"embeddings", COUNT_TOKENS}
    if payload.get("stream_options") and not is_stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options")
    objects, usage = OBJECTS_AT[endpoint](payload, model, options)
    return MockAnswer(endpoint, payload, objects, usage, options, is_stream)
