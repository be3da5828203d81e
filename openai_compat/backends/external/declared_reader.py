"""Reader of external replies whose form is declared in the models file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from openai_compat.backends.parsing.openai_chat import normalise_finish_reason, read_content, read_usage
from openai_compat.backends.parsing.openai_errors import ToError, find_status, raise_error_in
from openai_compat.backends.parsing.sse import ERROR_EVENT
from openai_compat.backends.parsing.surrogates import HalfJoiner
from openai_compat.backends.parsing.tool_calls import ToolCallParser
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.types import ChatDelta, FinishReason, ToolCallDelta, Usage

from .declaration import ErrorsDeclaration, ReplyDeclaration
from .expressions import Expression, TraceCallback, first_value


class DeclaredReader:
    """Reader of one reply by its declaration. `HeuristicReader` is its counterpart for undeclared replies.

    `record_id` is called with the name and value of each declared id.

    Raises:
        UpstreamError: by `read_value` and `read_complete`, for an object that is an error. `to_error` makes it.
    """

    def __init__(
        self,
        reply: ReplyDeclaration,
        errors: ErrorsDeclaration | None,
        to_error: ToError,
        record_id: Callable[[str, str], None],
    ) -> None:
        self._reply = reply
        self._when = errors.when if errors else None
        self._to_error = to_error
        self._record_id = record_id
        self.trace: TraceCallback | None = None
        self._tool_calls = ToolCallParser()
        self._counts: dict[str, Any] = {}
        self._text = ""
        self._halves = HalfJoiner()
        self._has_text = False
        self._finish_reason: FinishReason | None = None

    @property
    def has_answer(self) -> bool:
        """Return True if the declared path of the text existed, even if the text was empty."""
        return self._has_text

    def find(self, key: str, expression: Expression | None, value: Any) -> Any:
        """Return what the expression finds, and report it to `trace`."""
        if expression is None:
            return None
        found = expression.find(value)
        if self.trace is not None:
            self.trace(key, expression, found)
        return found

    def read_value(self, value: Any) -> Iterator[ChatDelta]:
        """Return the deltas in one event or line of a stream."""
        return self._read(value, "delta", self._reply.delta)

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]:
        """Return the deltas in a server-sent event.

        The event's name is the key `event` of the object, unless the object has such a key. A value that is not an
        object becomes the key `data`.
        """
        if not isinstance(value, dict):
            value = {"data": value}
        return self.read_value({"event": name, **value} if name else value)

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """Return the deltas in a server-sent event with text."""
        return self.read_event(name, data)

    def read_complete(self, value: Any) -> Iterator[ChatDelta]:
        """Return the deltas in a non-streaming reply."""
        return self._read(value, "text", self._reply.text or self._reply.delta)

    def read_text(self, text: str) -> Iterator[ChatDelta]:
        """Yield the delta of a chunk of plain text."""
        if self._reply.done is not None and self.find("done", self._reply.done, text):
            self._finish_reason = self._finish_reason or "stop"
            return
        self._has_text = True
        yield ChatDelta(text)

    def read_end(self, *, is_complete: bool) -> Iterator[ChatDelta]:
        """Yield the final delta with the finish reason, which is held back until then as text may follow it.

        `is_complete` is True for an end that cannot be a cut.

        Raises:
            UpstreamTruncatedError: `done` or `finish_reason` is declared, and the stream had neither.
            UpstreamInvalidResponseError: the reply had no text.
        """
        if not (self._has_text or self._tool_calls):
            path = self._reply.text or self._reply.delta
            missing = f"nothing at `{path.source}`, the declared path of the text" if path else "no text"
            raise UpstreamInvalidResponseError(f"The external API's reply has {missing}.")
        is_declared = bool(self._reply.done or self._reply.finish_reason)
        if self._finish_reason is None and is_declared and not is_complete:
            raise UpstreamTruncatedError("The external API's stream ended before its answer was complete.")
        reason = self._finish_reason or "stop"
        reason = "tool_calls" if reason == "stop" and self._tool_calls else reason
        yield ChatDelta(finish_reason=reason, tool_calls=self._tool_calls.read_end())

    def _read(self, value: Any, key: str, path: Expression | None) -> Iterator[ChatDelta]:
        self._raise_error(value)
        self._read_ids(value)
        text = self._find_text(key, path, value)
        reasoning = self.find("reasoning", self._reply.reasoning, value)
        self._read_finish_reason(value)
        delta = ChatDelta(
            self._halves.join("text", text) or None,
            reasoning=self._halves.join("reasoning", read_content(reasoning)[0]) or None,
            tool_calls=self._read_tool_calls(value),
            usage=self._read_usage(value),
        )
        if delta != _EMPTY:
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

    def _find_text(self, key: str, path: Expression | None, value: Any) -> str:
        found = self.find(key, path, value)
        if found is None:
            return ""
        self._has_text = True
        text = found if isinstance(found, str) else _to_text(found)
        return self._new_text(text) if self._reply.is_cumulative else text

    def _new_text(self, text: str) -> str:
        """Return the text that is new, for an API that repeats the answer from its beginning in each event.

        Raises:
            UpstreamInvalidResponseError: earlier text changed, which was already sent to the client.
        """
        if not text:  # an event without text, such as the end or the usage
            return ""
        if not text.startswith(self._text):
            raise UpstreamInvalidResponseError(
                "The external API changed earlier text of an answer that is declared as cumulative."
            )
        new_text, self._text = text[len(self._text) :], text
        return new_text

    def _read_finish_reason(self, value: Any) -> None:
        if self._finish_reason is not None:
            return
        reported = first_value(self.find("finish_reason", self._reply.finish_reason, value))
        is_done = bool(self.find("done", self._reply.done, value))
        if reported or is_done:
            self._finish_reason = self._reply.finish_reasons.get(str(reported)) or normalise_finish_reason(reported)

    def _read_usage(self, value: Any) -> Usage | None:
        found = {name: first_value(self.find(f"usage.{name}", path, value)) for name, path in self._reply.usage.items()}
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
        for name, path in self._reply.ids.items():
            found = first_value(self.find(f"ids.{name}", path, value))
            if isinstance(found, str | int):
                self._record_id(name, str(found))


def _to_text(found: Any) -> str:
    """Return the joined parts of a list, a number as text, or "" for anything else."""
    if isinstance(found, list):
        return "".join(part if isinstance(part, str) else read_content([part])[0] for part in found)
    return json.dumps(found) if isinstance(found, int | float) and not isinstance(found, bool) else ""


_EMPTY = ChatDelta()
