"""A healthy answer: built from the request's body, and cut into the pieces that are sent one by one."""

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
from .options import Options

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
OBJECTS_AT = {"chat/completions": chat_objects, "completions": completion_objects, "embeddings": embedding_objects}


@dataclass(frozen=True)
class MockAnswer:
    """A healthy answer, ready to be sent or to be spoiled."""

    payload: Json
    """The request's body."""
    objects: tuple[Json, ...]
    """The chunk objects of a stream, or the one object of an answer that is not streamed."""
    usage: Json
    options: Options
    is_stream: bool

    @property
    def content_type(self) -> str:
        """The media type of the pieces."""
        return SSE_TYPE if self.is_stream else JSON_TYPE

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The events of a stream with `[DONE]`, or the four quarters of a body."""
        if self.is_stream:
            return (*map(to_event, self.objects), DONE)
        body = json.dumps(self.objects[0], indent=2, ensure_ascii=False).encode("utf-8", "replace")
        quarter = len(body) // 4 + 1
        return tuple(body[start : start + quarter] for start in range(0, len(body), quarter))

    @property
    def beginning(self) -> tuple[bytes, ...]:
        """The pieces before the place where a fault in the middle happens."""
        count = self.options.after if self.options.after >= 0 else len(self.pieces) // 2
        return self.pieces[:count]

    def edited(self, edit: Callable[[list[Json]], list[Json]]) -> MockAnswer:
        """Return a copy whose objects are what `edit` makes of a copy of them."""
        return replace(self, objects=tuple(edit(deepcopy(list(self.objects)))))


def to_event(chunk: Json) -> bytes:
    """Return one object as a server-sent event."""
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"


def build_answer(door: str, payload: Json, model: str, options: Options) -> MockAnswer:
    """Return what OpenAI answers at `door`; raise `ApiError` for a request that it refuses."""
    is_stream = bool(payload.get("stream")) and door != "embeddings"
    if payload.get("stream_options") and not is_stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options")
    objects, usage = OBJECTS_AT[door](payload, model, options)
    return MockAnswer(payload, objects, usage, options, is_stream)
