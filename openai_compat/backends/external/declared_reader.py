"""Reads the replies of an external API by what its row declares: each fact at the path where it is said to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from openai_compat.backends.parsing.openai_chat import normalise_finish_reason, read_content, read_usage
from openai_compat.backends.parsing.openai_errors import ToError, find_status, raise_error_in
from openai_compat.backends.parsing.tool_calls import ToolCallParser
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.types import ChatDelta, FinishReason, ToolCallDelta, Usage

from .declaration import ErrorsDeclaration, ReplyDeclaration
from .expressions import Expression, Watch, first_value
from .heuristic_reader import ERROR_EVENT


class DeclaredReader:
    """One answer, as `HeuristicReader` reads those that nobody has declared. `note_id` gets its ids by
    the names that the row has for them.

    Raises:
        UpstreamError: by `read_value` and `read_whole`, for an object that is an error; made by `to_error`.
    """

    def __init__(
        self,
        reply: ReplyDeclaration,
        errors: ErrorsDeclaration | None,
        to_error: ToError,
        note_id: Callable[[str, str], None],
    ) -> None:
        self._reply = reply
        self._when = errors.when if errors else None
        self._to_error = to_error
        self._note_id = note_id
        self.trace: Watch | None = None
        self._tool_calls = ToolCallParser()
        self._counts: dict[str, Any] = {}
        self._text = ""
        self._has_text = self._is_finished = False

    @property
    def has_answer(self) -> bool:
        """Whether the place of the answer's text was there, be it empty."""
        return self._has_text

    def find(self, what: str, expression: Expression | None, value: Any) -> Any:
        """What the expression finds: the one place where a reply is looked into. `trace` is told."""
        if expression is None:
            return None
        found = expression.find(value)
        if self.trace is not None:
            self.trace(what, expression, found)
        return found

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        """The deltas in one event or line of a stream."""
        return self._read(value, "delta", self._reply.delta)

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        """The deltas in a server-sent event. An object has the event's name as its `event`, unless that is a key of its
        own; what is no object is the `data` of one.
        """
        if not isinstance(value, dict):
            value = {"data": value}
        return self.read_value({"event": name, **value} if name else value)

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """The same for an event with text in it."""
        return self.read_event(name, data)

    def read_whole(self, value: Any) -> Iterator[ChatDelta]:
        """The deltas in a reply that comes as a whole."""
        return self._read(value, "text", self._reply.text or self._reply.delta)

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        """A piece that is nothing but text."""
        if self._reply.done is not None and self.find("done", self._reply.done, text):
            yield from self._finish()
            return
        self._has_text = True
        yield ChatDelta(text)

    def read_end(self, *, is_proper: bool) -> Iterator[ChatDelta]:
        """What follows from the end. Where the row declares how an answer says its end, a stream that did not was cut.

        Raises:
            UpstreamCutError: it was.
            UpstreamReplyError: no piece had a text in it.
        """
        if not (self._has_text or self._tool_calls):
            where = self._reply.text or self._reply.delta
            place = f"nothing at `{where.source}`" if where else "no text"
            raise UpstreamInvalidResponseError(
                f"The external API's reply has {place}, where its row says that the text is."
            )
        if self._is_finished:
            return
        if not is_proper and (self._reply.done or self._reply.finish_reason):
            raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
        yield from self._finish()

    def _finish(self) -> Iterator[ChatDelta]:
        if not self._is_finished:
            self._is_finished = True
            yield ChatDelta(finish_reason="tool_calls" if self._tool_calls else "stop")

    def _read(self, value: Any, name: str, place: Expression | None) -> Iterator[ChatDelta]:
        self._raise_error(value)
        self._read_ids(value)
        text = self._read_text_at(name, place, value)
        reasoning = self.find("reasoning", self._reply.reasoning, value)
        tool_calls = self._read_tool_calls(value)
        delta = ChatDelta(
            text or None,
            finish_reason=self._read_finish_reason(value),
            reasoning=read_content(reasoning)[0] or None,
            tool_calls=tool_calls,
            usage=self._read_usage(value),
        )
        if delta != _NOTHING:
            yield delta

    def _raise_error(self, value: Any) -> None:
        if self._when is None:
            if isinstance(value, dict):
                raise_error_in(value, self._to_error)
            is_error = isinstance(value, dict) and value.get("event") == ERROR_EVENT
        else:
            is_error = bool(self.find("errors.when", self._when, value))
        if is_error:
            status = find_status(value) if isinstance(value, dict) else None
            raise self._to_error(status, json.dumps(value).encode())

    def _read_text_at(self, name: str, place: Expression | None, value: Any) -> str:
        found = self.find(name, place, value)
        if found is None:
            return ""
        self._has_text = True
        text = found if isinstance(found, str) else _to_text(found)
        return self._new_text(text) if self._reply.is_cumulative else text

    def _new_text(self, text: str) -> str:
        """What a piece says beyond the one before it, for an API that repeats the answer from its start each time.

        Raises:
            UpstreamReplyError: it says something else than before: what was sent on cannot be taken back.
        """
        if not text:  # a piece that says something else: that this is the end, what it cost
            return ""
        if not text.startswith(self._text):
            raise UpstreamInvalidResponseError(
                "The external API changed what it had said, in an answer declared as cumulative."
            )
        news, self._text = text[len(self._text) :], text
        return news

    def _read_finish_reason(self, value: Any) -> FinishReason | None:
        if self._is_finished:
            return None
        word = first_value(self.find("finish_reason", self._reply.finish_reason, value))
        is_done = bool(self.find("done", self._reply.done, value))
        if not (word or is_done):
            return None
        self._is_finished = True
        reason = self._reply.finish_reasons.get(str(word)) or normalise_finish_reason(word)
        return "tool_calls" if reason == "stop" and self._tool_calls else reason

    def _read_usage(self, value: Any) -> Usage | None:
        found = {
            name: first_value(self.find(f"usage.{name}", place, value)) for name, place in self._reply.usage.items()
        }
        counts = {name: int(count) for name, count in found.items() if isinstance(count, int | float)}
        if not counts:
            return None
        self._counts |= counts
        if not {"prompt_tokens", "completion_tokens"} <= self._counts.keys():
            return None
        return read_usage(
            {
                **self._counts,
                "prompt_tokens_details": self._counts,
                "completion_tokens_details": self._counts,
            }
        )

    def _read_tool_calls(self, value: Any) -> tuple[ToolCallDelta, ...]:
        calls = self.find("tool_calls", self._reply.tool_calls, value)
        return self._tool_calls.read({"tool_calls": calls}) if calls else ()

    def _read_ids(self, value: Any) -> None:
        for name, place in self._reply.ids.items():
            found = first_value(self.find(f"ids.{name}", place, value))
            if isinstance(found, str | int):
                self._note_id(name, str(found))


def _to_text(found: Any) -> str:
    """A text in parts, or a number; of anything else nothing that one could have meant."""
    if isinstance(found, list):
        return "".join(part if isinstance(part, str) else read_content([part])[0] for part in found)
    return json.dumps(found) if isinstance(found, int | float) and not isinstance(found, bool) else ""


_NOTHING = ChatDelta()
