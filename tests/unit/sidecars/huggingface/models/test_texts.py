"""The parts of local models that know no model: texts, stop strings, tool calls."""

from __future__ import annotations

import json
import random

import pytest

from tests.support.tiny_models import byte_tokenizer, require_local_extra

require_local_extra()

from openai_compat.core.types import ToolCallDelta  # noqa: E402 - torch may not be there
from openai_compat.sidecars.huggingface.models.detokenizer import Detokenizer  # noqa: E402
from openai_compat.sidecars.huggingface.models.stop_strings import StopStrings  # noqa: E402
from openai_compat.sidecars.huggingface.models.tool_formats import (  # noqa: E402
    BARE,
    HERMES,
    MISTRAL,
    ToolCallParser,
    find_tool_format,
)

TEXT = "Zo\u00eb l\u00e4uft \U0001f3c3\U0001f3fd nach \u6771\u4eac \u2014 done"


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return byte_tokenizer(None)


def test_a_character_is_told_when_its_last_byte_has_come(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in tokenizer(TEXT)["input_ids"]]
    assert "".join(pieces) == TEXT
    assert [piece for piece in pieces if piece] == list(TEXT)
    assert detokenizer.flush() == ""


def test_half_a_character_at_the_end_is_told_as_such(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token) for token in tokenizer("a\u6771")["input_ids"][:-1]] == ["a", "", ""]
    assert detokenizer.flush() == "\ufffd"


def test_bytes_that_make_no_character_are_not_held_for_ever(tokenizer) -> None:  # type: ignore[no-untyped-def]
    detokenizer = Detokenizer(tokenizer)
    continuation = tokenizer("\u6771")["input_ids"][1]
    pieces = [detokenizer.push(continuation) for _ in range(30)]
    assert set("".join(pieces)) == {"\ufffd"}


def test_the_prompt_decides_about_a_leading_space(tokenizer) -> None:  # type: ignore[no-untyped-def]
    *context, last = tokenizer("one two")["input_ids"]
    assert Detokenizer(tokenizer, context).push(last) == "o"


@pytest.mark.parametrize("seed", range(20))
def test_stop_strings_however_the_text_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(chance.choices("abc ", k=60))
    stops = ["".join(chance.choices("abc ", k=chance.randint(1, 4))) for _ in range(2)]
    ends = [place for place in map(text.find, stops) if place >= 0]
    wanted = text[: min(ends)] if ends else text
    matcher, told, rest = StopStrings(stops), "", text
    while rest and not matcher.is_stopped:
        size = chance.randint(1, 5)
        told += matcher.push(rest[:size])
        rest = rest[size:]
        assert wanted.startswith(told)
    assert told + matcher.flush() == wanted
    assert matcher.is_stopped == bool(ends)


def read(parser: ToolCallParser, text: str, size: int) -> tuple[str, list[ToolCallDelta]]:
    content, calls = "", []
    for begin in range(0, len(text), size):
        more, found = parser.push(text[begin : begin + size])
        content, calls = content + more, [*calls, *found]
    more, found = parser.flush()
    return content + more, [*calls, *found]


CALL = {"name": "get_weather", "arguments": {"city": "Z\u00fcrich"}}
OTHER = {"name": "get_time", "arguments": {}}


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tool_calls_between_tags(size: int) -> None:
    text = f"I look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>\n<tool_call>{json.dumps(OTHER)}</tool_call>"
    content, calls = read(ToolCallParser(HERMES), text, size)
    assert content.strip() == "I look."
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "get_weather", {"city": "Z\u00fcrich"}),
        (1, "get_time", {}),
    ]
    assert [call.name for call in read(ToolCallParser(HERMES, takes_many=False), text, size)[1]] == ["get_weather"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tool_calls_in_a_list_or_bare(size: int) -> None:
    _, calls = read(ToolCallParser(MISTRAL), f"[TOOL_CALLS]{json.dumps([CALL, OTHER])}", size)
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    bare = json.dumps({"name": "get_weather", "parameters": {"city": "Rome"}})
    content, (call,) = read(ToolCallParser(BARE), f"\n{bare}", size)
    assert (content.strip(), call.name, json.loads(call.arguments)) == ("", "get_weather", {"city": "Rome"})


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text", ["Plain text, 1 < 2.", "a <tool_call>not JSON</tool_call> b", '{"no": "call"}', "<tool_"]
)
def test_what_is_no_call_stays_text(text: str, size: int) -> None:
    for format_ in (HERMES, BARE):
        content, calls = read(ToolCallParser(format_), text, size)
        assert calls == []
        assert content.replace("</tool_call>", "").replace(" ", "") == text.replace("</tool_call>", "").replace(" ", "")


def test_the_template_tells_the_format() -> None:
    assert find_tool_format("{% if tools %}<tool_call>{% endif %}") is HERMES
    assert find_tool_format("{% if tools %}[TOOL_CALLS]{% endif %}") is MISTRAL
    assert find_tool_format('{% if tools %}{"name": x, "parameters": y}{% endif %}') is BARE
    assert find_tool_format("{% if tools %}<tool_call><function=f>{% endif %}") is None
    assert find_tool_format("{{ messages }}") is None
