"""Deltas of emulated answers, with what they carry besides text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.core.errors import InvalidAnswerError
from openai_compat.core.streams import HEARTBEAT
from openai_compat.core.types import ChatDelta, TokenLogprob, Usage
from openai_compat.services.emulation.deltas import read_emulated
from openai_compat.services.emulation.structured_output import AnswerFormat
from openai_compat.services.emulation.tool_rules import ToolRules, to_rules

TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


class Source(Iterator[Any]):
    """Deltas of a backend, which know whether they were closed."""

    def __init__(self, *deltas: Any) -> None:
        self._deltas = iter(deltas)
        self.is_closed = False

    def __next__(self) -> Any:
        return next(self._deltas)

    def close(self) -> None:
        self.is_closed = True


def rules() -> ToolRules:
    found = to_rules(TOOLS, "auto", allows_many=True)
    assert found is not None
    return found


def read(*deltas: Any, interval: float = 0.0, format_: AnswerFormat | None = None) -> list[Any]:
    source = Source(*deltas)
    result = list(read_emulated(source, rules(), format_, interval))
    assert source.is_closed
    return result


def test_deltas_without_a_call_are_the_backends_own() -> None:
    usage = Usage(1, 2)
    deltas = [ChatDelta("Hello"), HEARTBEAT, ChatDelta(reasoning="hm"), ChatDelta(finish_reason="stop", usage=usage)]
    assert all(new is old for new, old in zip(read(*deltas), deltas, strict=True))


def test_a_call_keeps_the_usage_and_loses_the_log_probabilities_of_its_tokens() -> None:
    logprob = TokenLogprob("x", -1.0)
    (delta,) = read(ChatDelta(CALL, logprobs=(logprob,)), ChatDelta(finish_reason="stop", usage=Usage(3, 4)))
    assert (delta.content, delta.finish_reason, delta.usage, delta.logprobs) == (None, "tool_calls", Usage(3, 4), ())
    assert [call.name for call in delta.tool_calls] == ["f"]


def test_the_choices_of_an_answer_are_read_separately() -> None:
    deltas = [ChatDelta(CALL[:20], 0), ChatDelta("Hello", 1), ChatDelta(CALL[20:], 0)]
    first, second, third = read(*deltas, ChatDelta(None, 1, "stop"), ChatDelta(None, 0, "stop"))
    assert (first.content, second.finish_reason) == ("Hello", "stop")
    assert (third.index, third.finish_reason, len(third.tool_calls)) == (0, "tool_calls", 1)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_off_keeps_its_reason(reason: Any) -> None:
    assert [delta.finish_reason for delta in read(ChatDelta(CALL + CALL[:20]), ChatDelta(finish_reason=reason))] == [
        reason
    ]
    (delta,) = read(ChatDelta('{"a": '), ChatDelta(finish_reason=reason), format_=AnswerFormat({"type": "object"}))
    assert (delta.content, delta.finish_reason) == ('{"a": ', reason)


def test_a_refusal_takes_the_place_of_structured_output() -> None:
    deltas = [ChatDelta(refusal="I cannot "), ChatDelta(refusal="say."), ChatDelta(finish_reason="stop")]
    assert read(*deltas, format_=AnswerFormat({"type": "object"})) == deltas


def test_held_text_becomes_heartbeats() -> None:
    """Without them, a proxy would close the connection of a client that waits for a long call."""
    held = [ChatDelta(character) for character in CALL]
    assert read(*held, ChatDelta(finish_reason="stop"), interval=1e-9)[:-1] == [HEARTBEAT] * len(held)
    assert len(read(*held, ChatDelta(finish_reason="stop"), interval=60)) == 1


def test_the_source_is_closed_after_an_error_and_by_the_reader() -> None:
    source = Source(ChatDelta("<tool_call>no</tool_call>"), ChatDelta(finish_reason="stop"))
    with pytest.raises(InvalidAnswerError):
        list(read_emulated(source, rules(), None, 0))
    assert source.is_closed
    source = Source(ChatDelta("Hello"), ChatDelta(finish_reason="stop"))
    deltas = read_emulated(source, rules(), None, 0)
    next(deltas)
    deltas.close()  # type: ignore[attr-defined]
    assert source.is_closed
