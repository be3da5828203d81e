"""Reads the JSON values and texts of one answer, whatever their shape, into the domain's deltas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from openai_compat.backends.parsing.openai_chat import ChatParser, read_usage
from openai_compat.backends.parsing.openai_errors import ToError, raise_error_in, to_status_error
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

MAX_KEYS_NAMED = 20
ERROR_EVENT = "error"
"""The name by which server-sent events tell of a failure."""


class HeuristicReader:
    """One answer: `read_value` and `read_text` for each of its pieces in their order, then `read_end`.

    OpenAI's shape is read as such, unless `reply_path` says where the text is; in any other shape the text is searched
    for, with the finish reason and the usage where they are told. Only the first choice of several is read.

    Raises:
        UpstreamError: by `read_value`, for an object that is an error; what `to_error` makes of it.
    """

    def __init__(self, reply_path: str | None = None, to_error: ToError = to_status_error) -> None:
        self._path = reply_path
        self._to_error = to_error
        self._chat = ChatParser()
        self._is_openai = self._is_finished = self._announces_end = self._has_text = False
        self._counts: dict[str, Any] = {}
        self._keys: Sequence[str] = ()
        self._repetition = _DuplicateFilter()

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        """The deltas in one JSON value: a whole reply, an event, or a line."""
        facts = _last_object(value)
        raise_error_in(facts, self._to_error)
        if self._path is None and _is_openai_shaped(facts):
            self._is_openai = True
            yield from (delta for delta in self._chat.read(facts) if delta.index == 0)
            return
        if is_failure(facts):
            raise_error_in({"error": facts}, self._to_error)
        self._keys = list(facts) or self._keys
        parts = to_parts(facts)
        text = self._find_text(value)
        finish_reason = self._read_finish_reason(parts)
        self._has_text = self._has_text or text is not None
        new_text = self._repetition.without_repetition(text or "", is_end=finish_reason is not None)
        delta = ChatDelta(
            new_text or None,
            finish_reason=finish_reason,
            reasoning=find_reasoning(parts),
            usage=self._read_usage(parts),
        )
        if delta != _NOTHING:
            yield delta

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        """The deltas in an event with JSON in it. One that is called an error is one, whatever it says."""
        if name == ERROR_EVENT:
            raise_error_in({"error": value or True}, self._to_error)
        return self.read_value(value)

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """The deltas in an event with text in it."""
        if name == ERROR_EVENT:
            raise_error_in({"error": data or True}, self._to_error)
        return self.read_text(data) if data else iter(())

    def read_whole(self, value: Any) -> Iterator[ChatDelta]:
        """The deltas in a reply that comes as a whole: the same, where each thing is searched for."""
        return self.read_value(value)

    @property
    def has_answer(self) -> bool:
        """Whether what was read so far has a place for the answer's text, be it empty."""
        return self._is_openai or self._has_text

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        """A piece that is nothing but text."""
        self._has_text = True
        yield ChatDelta(text)

    def read_end(self, *, is_proper: bool) -> Iterator[ChatDelta]:
        """What follows from the end. `is_proper` for one that cannot be a cut: `[DONE]`, the end of a JSON document.

        Raises:
            UpstreamCutError: the stream's pieces had a place for the end of the answer, and no piece said it.
            UpstreamReplyError: no piece had a text in it.
        """
        if self._is_openai:
            if not (is_proper or self._chat.is_finished):
                raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
            yield from (delta for delta in self._chat.read_end() if delta.index == 0)
            return
        if not self._has_text:
            raise UpstreamInvalidResponseError(self._explain_missing_text())
        if not self._is_finished:
            if self._announces_end and not is_proper:
                raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
            yield ChatDelta(finish_reason="stop")

    def _find_text(self, value: Any) -> str | None:
        found = value if self._path is None else follow_path(value, self._path)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return json.dumps(found)
        return find_reply(found) if self._path is None else find_text(found)

    def _read_finish_reason(self, parts: Sequence[JSONObject]) -> FinishReason | None:
        reason = None if self._is_finished else find_finish_reason(parts)
        self._is_finished = self._is_finished or reason is not None
        self._announces_end = self._announces_end or has_finish_field(parts)
        return reason

    def _read_usage(self, parts: Sequence[JSONObject]) -> Usage | None:
        found = find_counts(parts)
        self._counts.update(found)
        return read_usage(self._counts) if found and "completion_tokens" in self._counts else None

    def _explain_missing_text(self) -> str:
        named = ", ".join(f"'{_printable(key)}'" for key in self._keys[:MAX_KEYS_NAMED])
        there = f"its keys are {named}" if named else "it is empty or has no keys"
        where = f"nothing at reply_path '{self._path}'" if self._path else "no text"
        advice = "reply_path (EXTERNAL_CHAT_REPLY_PATH) says where the text is, such as data.answer"
        return f"The external API's reply has {where}: {there}. The setting {advice}."


class _DuplicateFilter:
    """Notices an event that repeats the whole answer after its pieces, as some APIs send at the end.

    Compares lengths and checksums, so that no text is kept. Where the event does not say that it is the end, a short
    repetition is taken for the answer's own ("ha", "ha", "haha").
    """

    __slots__ = ("_checksum", "_length", "_pieces")

    MIN_REPEATED_CHARS = 16

    def __init__(self) -> None:
        self._checksum = self._length = self._pieces = 0

    def without_repetition(self, text: str, *, is_end: bool) -> str:
        if not text:
            return text
        content = text.encode("utf-8", "surrogatepass")
        is_possible = is_end or (self._pieces > 1 and self._length >= self.MIN_REPEATED_CHARS)
        if is_possible and len(content) == self._length and crc32(content) == self._checksum:
            return ""
        self._checksum = crc32(content, self._checksum)
        self._length += len(content)
        self._pieces += 1
        return text


_NOTHING = ChatDelta()


def is_reply(value: Any) -> bool:
    """Whether a JSON value is, by its shape, an API's reply or a piece of one: it has a text, or tells of an error."""
    facts = _last_object(value)
    return bool(facts.get("error")) or _is_openai_shaped(facts) or find_reply(value) is not None


def _is_openai_shaped(value: JSONObject) -> bool:
    choices = value.get("choices")
    if not isinstance(choices, list):
        return False
    return all(isinstance(choice, dict) and not choice.keys().isdisjoint(_CHOICE_KEYS) for choice in choices)


_CHOICE_KEYS = frozenset({"delta", "message", "text"})


def _last_object(value: Any) -> JSONObject:
    """Where finish reason, usage and errors are told: in the object itself, or in the last one of a list."""
    last = value[-1] if isinstance(value, list) and value else value
    return last if isinstance(last, dict) else {}


def _printable(key: str) -> str:
    return "".join(filter(str.isprintable, key))[:40]
