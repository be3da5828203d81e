"""Characters that an upstream split into surrogate halves over two events."""

from __future__ import annotations

import re
from typing import Any, Final

from openai_compat.backends.parsing.surrogates import HalfJoiner

from .event_stream import JSON
from .sse_events import choices_of

ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""A surrogate in JSON, which may be half of a character or one of two halves of a complete one."""

_TEXT_KEYS: Final = frozenset({"content", "text", "reasoning_content", "reasoning", "refusal"})


class SurrogateJoiner:
    """Joins the halves of characters in the chunks of one stream. A half without its other becomes U+FFFD."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves = HalfJoiner()

    def __bool__(self) -> bool:
        """True while a first half waits for the second."""
        return bool(self._halves)

    def join(self, chunk: JSON) -> JSON:
        """Return the chunk with its texts repaired, the same object if nothing changes. An open half is held back."""
        choices = choices_of(chunk)
        repaired = [self._repair_choice(choice) for choice in choices]
        is_changed = any(new is not old for new, old in zip(repaired, choices, strict=True))
        return {**chunk, "choices": repaired} if is_changed else chunk

    def _repair_choice(self, choice: Any) -> Any:
        delta = choice.get("delta")
        texts = delta if isinstance(delta, dict) else choice
        index = choice["index"] if isinstance(choice.get("index"), int) else 0
        changes: JSON = {
            key: repaired
            for key in _TEXT_KEYS & texts.keys()
            if isinstance(texts[key], str) and (repaired := self._halves.join((index, key), texts[key])) != texts[key]
        }
        if isinstance(calls := texts.get("tool_calls"), list):
            repaired_calls = [self._repair_call(index, call) for call in calls]
            if repaired_calls != calls:
                changes["tool_calls"] = repaired_calls
        if not changes:
            return choice
        return {**choice, "delta": {**delta, **changes}} if isinstance(delta, dict) else {**choice, **changes}

    def _repair_call(self, choice: int, call: Any) -> Any:
        """Return a tool call with its arguments repaired. The call's index tells the calls of a choice apart."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
            return call
        joined = self._halves.join((choice, str(call.get("index"))), arguments)
        return call if joined == arguments else {**call, "function": {**function, "arguments": joined}}
