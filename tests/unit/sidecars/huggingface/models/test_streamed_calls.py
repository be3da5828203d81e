"""Tool calls whose arguments are passed on as they arrive, for every way in which their text may be split."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from openai_compat.core.errors import InvalidAnswerError
from openai_compat.core.types import ToolCallDelta
from openai_compat.sidecars.huggingface.models.tool_formats import (
    BARE,
    GRANITE,
    HERMES,
    MISTRAL,
    ToolCallParser,
    ToolFormat,
)

ARGUMENTS = '{"city": "Z\u00fcrich \\"{]\\\\", "days": [{"to": 2}, {}]}'
EMPTY = "{}"


def call(name: str, arguments: str, format_: ToolFormat = HERMES) -> str:
    return f'{{"name": "{name}", "{format_.arguments}": {arguments}}}'


def read(parser: ToolCallParser, parts: Iterable[str]) -> tuple[str, list[ToolCallDelta]]:
    content, deltas = "", []
    for part in parts:
        more, found = parser.push(part)
        content, deltas = content + more, [*deltas, *found]
    more, found = parser.flush()
    return content + more, [*deltas, *found]


def splits(text: str) -> Iterable[list[str]]:
    """Yield the text in two parts, split at each position, and in parts of each size."""
    yield from ([text[:position], text[position:]] for position in range(len(text)))
    for size in range(1, len(text) + 1):
        yield [text[start : start + size] for start in range(0, len(text), size)]


def joined(deltas: Iterable[ToolCallDelta]) -> list[tuple[str, str]]:
    """Return the name and the arguments of each call, as a client joins them. The first delta alone has the name."""
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        if delta.index == len(calls):
            assert delta.id is not None
            assert delta.name is not None
            calls.append((delta.name, ""))
        else:
            assert (delta.index, delta.id, delta.name) == (len(calls) - 1, None, None)
        calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return calls


TWO = [("weather", ARGUMENTS), ("time", EMPTY)]
ONE = TWO[:1]
BLOCKS = [call(name, arguments) for name, arguments in TWO]
LIST = f"[{', '.join(BLOCKS)}]"
CASES = [
    (HERMES, f"I look.\n<tool_call>\n{BLOCKS[0]}\n</tool_call>\n<tool_call>{BLOCKS[1]}</tool_call>\n", "I look.", TWO),
    (HERMES, f"<tool_call>{BLOCKS[0]}<tool_call>{BLOCKS[1]}", "", TWO),
    (HERMES, f"<tool_call> {BLOCKS[0]}\n</tool_call> Wait.", "Wait.", ONE),
    (HERMES, f"<tool_call>{BLOCKS[0]} Wait.", "Wait.", ONE),
    (MISTRAL, f"[TOOL_CALLS] {LIST}", "", TWO),
    (GRANITE, f"I look.<|tool_call|>[{BLOCKS[0]}]", "I look.", ONE),
]


@pytest.mark.parametrize(("format_", "text", "expected", "calls"), CASES)
def test_calls_are_the_same_for_every_split_of_their_text(
    format_: ToolFormat, text: str, expected: str, calls: list[tuple[str, str]]
) -> None:
    for parts in splits(text):
        parser = ToolCallParser(format_, streams=True)
        content, deltas = read(parser, parts)
        assert (content.strip(), joined(deltas)) == (expected, calls), parts
        assert not parser.is_cut


@pytest.mark.parametrize("format_", [HERMES, MISTRAL, BARE])
def test_a_forced_call_begins_without_a_mark(format_: ToolFormat) -> None:
    body = call("weather", ARGUMENTS, format_)
    text = f"[{body}]" if format_.is_list else body
    for parts in splits(text):
        parser = ToolCallParser(format_, is_forced=True, streams=True)
        assert joined(read(parser, parts)[1]) == ONE, parts
        assert not parser.is_cut


def test_arguments_are_returned_as_they_arrive() -> None:
    parser = ToolCallParser(HERMES, streams=True)
    parser.push(f"<tool_call>{BLOCKS[0].partition(ARGUMENTS)[0]}")
    for character in ARGUMENTS:
        (delta,) = [delta for delta in parser.push(character)[1] if delta.arguments]
        assert delta.arguments == character


def test_only_the_first_call_counts_if_the_client_allows_one() -> None:
    text = f"<tool_call>{BLOCKS[0]}</tool_call>\n<tool_call>{BLOCKS[1]}</tool_call>"
    for parts in splits(text):
        content, deltas = read(ToolCallParser(HERMES, allows_many=False, streams=True), parts)
        assert (content.strip(), joined(deltas)) == ("", ONE)


@pytest.mark.parametrize("format_", [HERMES, MISTRAL])
def test_a_call_that_is_cut_off_is_told_from_a_complete_one(format_: ToolFormat) -> None:
    body = call("weather", ARGUMENTS)
    text = format_.begin + (f"[{body}]" if format_.is_list else body)
    begin = text.index(ARGUMENTS)
    for length in range(len(text) + 1):
        parser = ToolCallParser(format_, streams=True)
        content, deltas = read(parser, text[:length])
        assert parser.is_cut == (begin < length < len(text))
        assert "".join(delta.arguments for delta in deltas) == text[begin:length][: len(ARGUMENTS)]
        assert not (content and deltas)


@pytest.mark.parametrize("arguments", ['{"city": }', "{'city': 1}", '{"city": "Rome"]', '{"a": 1 "b": 2}'])
def test_the_end_of_invalid_arguments_is_never_returned(arguments: str) -> None:
    parser = ToolCallParser(HERMES, streams=True)
    received: list[ToolCallDelta] = []

    def push_all() -> None:
        for character in f"<tool_call>{call('weather', arguments)}</tool_call>":
            received.extend(parser.push(character)[1])

    with pytest.raises(InvalidAnswerError, match="not valid JSON"):
        push_all()
    text = "".join(delta.arguments for delta in received)
    assert arguments.startswith(text)
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)


@pytest.mark.parametrize(
    "body", ['{"name": "weather", "arguments": "Rome"}', '{"name": "weather"}', '{"no": "call"}', "x"]
)
def test_calls_in_another_layout_are_read_as_without_streaming(body: str) -> None:
    text = f"I look. <tool_call>{body}</tool_call> Done."
    expected = read(ToolCallParser(HERMES), [text])
    for parts in splits(text):
        content, deltas = read(ToolCallParser(HERMES, streams=True), parts)
        assert ("".join(content.split()), deltas) == ("".join(expected[0].split()), expected[1])
