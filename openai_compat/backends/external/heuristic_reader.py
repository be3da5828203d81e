"""Reader of external replies of unknown shape, which searches JSON values for the parts of the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from openai_compat.backends.parsing.openai_chat import ChatParser, read_usage
from openai_compat.backends.parsing.openai_errors import ToError, raise_error_in, to_status_error
from openai_compat.backends.parsing.sse import ERROR_EVENT
from openai_compat.backends.parsing.surrogates import HalfJoiner
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.types import ChatDelta, FinishReason, JSONObject, Usage

from .known_shapes import (
    find_counts,
    find_finish_reason,
    find_reasoning,
    find_reply,
    find_text,
    follow_path,
    has_finish_field,
    is_failure,
    to_parts,
)

MAX_LISTED_KEYS = 20


class HeuristicReader:
    """Reader of one reply. Call `read_value` or `read_text` for each event in order, then `read_end`.

    OpenAI's shape is parsed as such, unless `reply_path` names the path of the text. In any other shape the text, the
    finish reason and the usage are searched for. Only the first of several choices is read.

    Raises:
        UpstreamError: by `read_value`, for an object that is an error. `to_error` makes it.
    """

    def __init__(self, reply_path: str | None = None, to_error: ToError = to_status_error) -> None:
        self._path = reply_path
        self._to_error = to_error
        self._chat = ChatParser()
        self._is_openai = self._has_finish_field = self._has_text = False
        self._finish_reason: FinishReason | None = None
        self._halves = HalfJoiner()
        self._counts: dict[str, Any] = {}
        self._keys: Sequence[str] = ()
        self._duplicates = _DuplicateFilter()

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        """Yield the deltas in one JSON value, which is a complete reply, an event or a line."""
        last_object = _last_object(value)
        raise_error_in(last_object, self._to_error)
        if self._path is None and _is_openai_shaped(last_object):
            self._is_openai = True
            yield from (delta for delta in self._chat.read(last_object) if delta.index == 0)
            return
        if is_failure(last_object):
            raise_error_in({"error": last_object}, self._to_error)
        self._keys = list(last_object) or self._keys
        parts = to_parts(last_object)
        text = self._find_text(value)
        is_end = self._read_finish_reason(parts)
        self._has_text = self._has_text or text is not None
        new_text = self._duplicates.filter_text(text or "", is_end=is_end)
        delta = ChatDelta(
            self._halves.join("text", new_text) or None,
            reasoning=self._halves.join("reasoning", find_reasoning(parts) or "") or None,
            usage=self._read_usage(parts),
        )
        if delta != _EMPTY:
            yield delta

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        """Return the deltas in a server-sent event with JSON. An event named `error` is an error in any case."""
        if name == ERROR_EVENT:
            raise_error_in({"error": value or True}, self._to_error)
        return self.read_value(value)

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """Return the deltas in a server-sent event with text."""
        if name == ERROR_EVENT:
            raise_error_in({"error": data or True}, self._to_error)
        return self.read_text(data) if data else iter(())

    def read_complete(self, value: Any) -> Iterator[ChatDelta]:
        """Return the deltas in a non-streaming reply."""
        return self.read_value(value)

    @property
    def has_answer(self) -> bool:
        """Return True if the reply had a text so far, even an empty one."""
        return self._is_openai or self._has_text

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        """Yield the delta of a chunk of plain text."""
        self._has_text = True
        yield ChatDelta(text)

    def read_end(self, *, is_complete: bool) -> Iterator[ChatDelta]:
        """Yield the final delta with the finish reason, which is held back until then as text may follow it.

        `is_complete` is True for an end that cannot be a cut, which is `[DONE]` or the end of a JSON document.

        Raises:
            UpstreamTruncatedError: the stream's events have a field for the finish reason, and it was never set.
            UpstreamInvalidResponseError: the reply had no text.
        """
        if self._is_openai:
            if not (is_complete or self._chat.is_finished):
                raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
            if not self._chat.has_content:
                raise UpstreamInvalidResponseError(self._explain_missing_text())
            yield from (delta for delta in self._chat.read_end() if delta.index == 0)
            return
        if not self._has_text:
            raise UpstreamInvalidResponseError(self._explain_missing_text())
        if self._finish_reason is None and self._has_finish_field and not is_complete:
            raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
        yield ChatDelta(finish_reason=self._finish_reason or "stop")

    def _find_text(self, value: Any) -> str | None:
        found = value if self._path is None else follow_path(value, self._path)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return json.dumps(found)
        return find_reply(found) if self._path is None else find_text(found)

    def _read_finish_reason(self, parts: Sequence[JSONObject]) -> bool:
        """Record the finish reason. Return True if the object has the first one."""
        reason = find_finish_reason(parts) if self._finish_reason is None else None
        self._finish_reason = self._finish_reason or reason
        self._has_finish_field = self._has_finish_field or has_finish_field(parts)
        return reason is not None

    def _read_usage(self, parts: Sequence[JSONObject]) -> Usage | None:
        found = find_counts(parts)
        self._counts.update(found)
        return read_usage(self._counts) if found and "completion_tokens" in self._counts else None

    def _explain_missing_text(self) -> str:
        keys = ", ".join(f"'{_printable(key)}'" for key in self._keys[:MAX_LISTED_KEYS])
        content = f"Its keys are {keys}" if keys else "It is empty or has no keys"
        missing = f"nothing at reply_path '{self._path}'" if self._path else "no text"
        advice = "Set reply_path (EXTERNAL_CHAT_REPLY_PATH) to the path of the text, such as data.answer"
        return f"The external API's reply has {missing}. {content}. {advice}."


class _DuplicateFilter:
    """Filter for a last event that repeats the complete answer, as some APIs send one.

    It compares lengths and checksums, so it keeps no text. If the event is not marked as the end, a short repetition
    counts as part of the answer ("ha", "ha", "haha").
    """

    __slots__ = ("_checksum", "_chunks", "_length")

    MIN_REPEATED_BYTES = 16

    def __init__(self) -> None:
        self._checksum = self._length = self._chunks = 0

    def filter_text(self, text: str, *, is_end: bool) -> str:
        if not text:
            return text
        content = text.encode("utf-8", "surrogatepass")
        is_possible = is_end or (self._chunks > 1 and self._length >= self.MIN_REPEATED_BYTES)
        if is_possible and len(content) == self._length and crc32(content) == self._checksum:
            return ""
        self._checksum = crc32(content, self._checksum)
        self._length += len(content)
        self._chunks += 1
        return text


_EMPTY = ChatDelta()


def is_reply(value: Any) -> bool:
    """Return True if a JSON value has the shape of a reply or an event, which is a text or an error."""
    last_object = _last_object(value)
    return bool(last_object.get("error")) or _is_openai_shaped(last_object) or find_reply(value) is not None


def _is_openai_shaped(value: JSONObject) -> bool:
    choices = value.get("choices")
    if not isinstance(choices, list):
        return False
    return all(isinstance(choice, dict) and not choice.keys().isdisjoint(_CHOICE_KEYS) for choice in choices)


_CHOICE_KEYS = frozenset({"delta", "message", "text"})


def _last_object(value: Any) -> JSONObject:
    """Return the object that has the finish reason, usage and errors, which is the last one of a list."""
    last = value[-1] if isinstance(value, list) and value else value
    return last if isinstance(last, dict) else {}


def _printable(key: str) -> str:
    return "".join(filter(str.isprintable, key))[:40]
