"""Detokenizer, stop strings and tool calls, which need no model. Only the detokenizer needs a tokenizer."""

from __future__ import annotations

import json
import random

import pytest

from openai_compat.core.types import ToolCallDelta
from openai_compat.sidecars.huggingface.models.detokenizer import Detokenizer
from openai_compat.sidecars.huggingface.models.stop_strings import StopStrings
from openai_compat.sidecars.huggingface.models.tool_formats import (
    BARE,
    GRANITE,
    HERMES,
    MISTRAL,
    ToolCallParser,
    find_tool_format,
)
from tests.support.tiny_models import byte_tokenizer

TEXT = "Zo\u00eb l\u00e4uft \U0001f3c3\U0001f3fd nach \u6771\u4eac \u2014 done"


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return byte_tokenizer(None)


@pytest.mark.extra("local")
def test_a_character_is_emitted_with_its_last_byte(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    chunks = [detokenizer.push(token) for token in tokenizer(TEXT)["input_ids"]]
    assert "".join(chunks) == TEXT
    assert [chunk for chunk in chunks if chunk] == list(TEXT)
    assert detokenizer.flush() == ""


@pytest.mark.extra("local")
def test_an_incomplete_character_at_the_end_is_a_replacement_character(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token) for token in tokenizer("a\u6771")["input_ids"][:-1]] == ["a", "", ""]
    assert detokenizer.flush() == "\ufffd"


@pytest.mark.extra("local")
def test_bytes_that_never_make_a_character_are_emitted(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    continuation = tokenizer("\u6771")["input_ids"][1]
    chunks = [detokenizer.push(continuation) for _ in range(30)]
    assert set("".join(chunks)) == {"\ufffd"}


@pytest.mark.extra("local")
def test_the_prompt_determines_the_leading_space(tokenizer) -> None:  # type: ignore[no-untyped-def]
    *context, last = tokenizer("one two")["input_ids"]
    assert Detokenizer(tokenizer, context).push(last) == "o"


@pytest.mark.parametrize("seed", range(20))
def test_stop_strings_are_found_however_the_text_is_split(seed: int) -> None:
    generator = random.Random(seed)
    text = "".join(generator.choices("abc ", k=60))
    stops = ["".join(generator.choices("abc ", k=generator.randint(1, 4))) for _ in range(2)]
    starts = [start for start in map(text.find, stops) if start >= 0]
    expected = text[: min(starts)] if starts else text
    matcher, emitted, rest = StopStrings(stops), "", text
    while rest and not matcher.is_stopped:
        size = generator.randint(1, 5)
        emitted += matcher.push(rest[:size])
        rest = rest[size:]
        assert expected.startswith(emitted)
    assert emitted + matcher.flush() == expected
    assert matcher.is_stopped == bool(starts)


def parse(parser: ToolCallParser, text: str, size: int) -> tuple[str, list[ToolCallDelta]]:
    content, calls = "", []
    for begin in range(0, len(text), size):
        more, found = parser.push(text[begin : begin + size])
        content, calls = content + more, [*calls, *found]
    more, found = parser.flush()
    return content + more, [*calls, *found]


CALL = {"name": "get_weather", "arguments": {"city": "Z\u00fcrich"}}
OTHER = {"name": "get_time", "arguments": {}}


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tool_calls_between_tags_are_parsed(size: int) -> None:
    text = f"I look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>\n<tool_call>{json.dumps(OTHER)}</tool_call>"
    content, calls = parse(ToolCallParser(HERMES), text, size)
    assert content.strip() == "I look."
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "get_weather", {"city": "Z\u00fcrich"}),
        (1, "get_time", {}),
    ]
    assert [call.name for call in parse(ToolCallParser(HERMES, allows_many=False), text, size)[1]] == ["get_weather"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tool_calls_in_a_list_or_without_tags_are_parsed(size: int) -> None:
    _, calls = parse(ToolCallParser(MISTRAL), f"[TOOL_CALLS]{json.dumps([CALL, OTHER])}", size)
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    bare = json.dumps({"name": "get_weather", "parameters": {"city": "Rome"}})
    content, (call,) = parse(ToolCallParser(BARE), f"\n{bare}", size)
    assert (content.strip(), call.name, json.loads(call.arguments)) == ("", "get_weather", {"city": "Rome"})
    content, (call,) = parse(ToolCallParser(BARE), f"<|python_tag|>{bare}", size)
    assert (content, call.name) == ("", "get_weather")
    content, calls = parse(ToolCallParser(GRANITE), f"I look.<|tool_call|>[{json.dumps(CALL)}]", size)
    assert (content, [call.name for call in calls]) == ("I look.", ["get_weather"])


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    ["Plain text, 1 < 2.", "a <tool_call>not JSON</tool_call> b", '{"no": "call"}', "<tool_", "<|python_ta", "< b"],
)
def test_text_that_is_no_call_stays_content(text: str, size: int) -> None:
    for format_ in (HERMES, BARE):
        content, calls = parse(ToolCallParser(format_), text, size)
        assert calls == []
        assert content.replace("</tool_call>", "").replace(" ", "") == text.replace("</tool_call>", "").replace(" ", "")


def test_the_format_is_found_in_the_template() -> None:
    assert find_tool_format("{% if tools %}<tool_call>{% endif %}") is HERMES
    assert find_tool_format("{% if tools %}[TOOL_CALLS]{% endif %}") is MISTRAL
    assert find_tool_format('{% if tools %}{"name": x, "parameters": y}{% endif %}') is BARE
    assert find_tool_format("{% if tools %}<tool_call><function=f>{% endif %}") is None
    assert find_tool_format("{% if tools %}[TOOL_CALLS]name[ARGS]{% endif %}") is None
    assert find_tool_format("{% if tools %}<|tool_call|>{% endif %}") is GRANITE
    assert find_tool_format("{{ messages }}") is None
