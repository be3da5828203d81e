"""Deltas of an emulated answer, in which text becomes tool calls and structured output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Final

from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream
from openai_compat.core.types import ChatDelta

from .call_parser import CallTextParser
from .structured_output import AnswerFormat, TextCollector
from .tool_rules import ToolRules

WHOLE: Final = frozenset({"stop", "tool_calls", "function_call"})
"""Finish reasons of an answer that nothing has cut off."""


def read_emulated(
    source: Iterator[ChatDelta | Heartbeat],
    rules: ToolRules | None,
    format_: AnswerFormat | None,
    heartbeat_interval: float,
) -> Iterator[ChatDelta | Heartbeat]:
    """Yield the deltas that a model with tools and structured output would have sent.

    Text that is held back is replaced by a heartbeat in each `heartbeat_interval`. Closing the generator closes its
    source.

    Raises:
        InvalidAnswerError: the answer breaks the rules or the format.
    """
    choices: dict[int, EmulatedChoice] = {}
    last_sent = monotonic()
    try:
        for delta in source:
            if delta is not HEARTBEAT:
                delta = choices.setdefault(delta.index, EmulatedChoice(rules, format_)).read(delta)
                if delta == ChatDelta(index=delta.index):
                    if not heartbeat_interval or monotonic() - last_sent < heartbeat_interval:
                        continue
                    delta = HEARTBEAT
            last_sent = monotonic()
            yield delta
    finally:
        close_stream(source)


class EmulatedChoice:
    """One choice of an emulated answer."""

    def __init__(self, rules: ToolRules | None, format_: AnswerFormat | None) -> None:
        self._parser = None if rules is None else CallTextParser(rules)
        self._collector = None if format_ is None else TextCollector(format_)

    def read(self, delta: ChatDelta) -> ChatDelta:
        """Return the delta for the client, which is empty if all of its text is held back."""
        if self._parser is not None:
            delta = self._read_calls(self._parser, delta)
        if self._collector is not None:
            delta = self._read_structured(self._collector, delta)
        return delta

    def _read_calls(self, parser: CallTextParser, delta: ChatDelta) -> ChatDelta:
        text = parser.push(delta.content) if delta.content else ""
        reason = delta.finish_reason
        if reason is None:
            return _with_text(delta, text)
        rest, calls = parser.end(is_complete=reason in WHOLE)
        changed = _with_text(delta, text + rest)
        if not calls:
            return changed
        return replace(changed, tool_calls=calls, finish_reason="tool_calls" if reason == "stop" else reason)

    def _read_structured(self, collector: TextCollector, delta: ChatDelta) -> ChatDelta:
        collector.add(delta)
        reason = delta.finish_reason
        text = "" if reason is None else collector.end(is_complete=reason in WHOLE)
        return _with_text(delta, text)


def _with_text(delta: ChatDelta, text: str) -> ChatDelta:
    """Return a delta with another text. Log probabilities belong to the tokens of the former one."""
    if text == (delta.content or ""):
        return delta
    return replace(delta, content=text or None, logprobs=())
