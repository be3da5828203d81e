"""Prompts made by chat templates, and the separation of content, calls and log probabilities in answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_models import PLAIN_TEMPLATE, byte_tokenizer
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.core.errors import InvalidRequestError  # noqa: E402 - it needs the same libraries as below
from openai_compat.core.types import ChatDelta, ChatRequest, TokenLogprob  # noqa: E402
from openai_compat.sidecars.huggingface.models.chat_template import (  # noqa: E402
    ChatDeltaBuilder,
    ChatTemplate,
    ToolOptions,
)
from openai_compat.sidecars.huggingface.models.sequence import TextChunk  # noqa: E402
from openai_compat.sidecars.huggingface.models.tool_formats import BARE, HERMES, ToolFormat  # noqa: E402

CONVERSATION = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def render(template: str, **parameters: Any) -> str:
    return ChatTemplate(byte_tokenizer(template)).render(ChatRequest("m", CONVERSATION, parameters)).text


def build(format_: ToolFormat, texts: list[str], *, streams: bool = False) -> list[ChatDelta]:
    """Return the deltas of tokens with these texts, each of which has a log probability."""
    options = ToolOptions(format_, is_forced=False, allows_many=True, may_stream=streams, names=frozenset({"f"}))
    builder = ChatDeltaBuilder(options, is_constrained=streams)
    chunks = [TextChunk(0, text, None, (TokenLogprob(text, -1.0, ()),)) for text in texts]
    return [delta for chunk in [*chunks, TextChunk(0, "", "stop")] for delta in builder.build(chunk, is_last=False)]


def content_of(deltas: list[ChatDelta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def tokens_of(deltas: list[ChatDelta]) -> str:
    return "".join(entry.token for delta in deltas for entry in delta.logprobs)


def test_a_template_without_the_role_developer_gets_the_role_system() -> None:
    assert render(PLAIN_TEMPLATE).startswith("system: Be brief.\nuser: Hi")
    assert render("{# developer #}" + PLAIN_TEMPLATE).startswith("developer: Be brief.")


@pytest.mark.parametrize("name", ["chat_template", "conversation", "tokenize", "tools", "return_tensors"])
def test_chat_template_kwargs_cannot_replace_the_tokenizers_options(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}'") as caught:
        render(PLAIN_TEMPLATE, chat_template_kwargs={name: "{{ 'ab' }}"})
    assert caught.value.param == "chat_template_kwargs"


def test_chat_template_kwargs_are_variables_of_the_template() -> None:
    template = "{{ mood }} {{ documents[0]['text'] }}"
    assert render(template, chat_template_kwargs={"mood": "calm", "documents": [{"text": "A"}]}) == "calm A"


@pytest.mark.parametrize("format_", [HERMES, BARE], ids=["hermes", "bare"])
def test_text_that_may_become_a_call_keeps_its_log_probabilities(format_: ToolFormat) -> None:
    for texts in (["a", " <", " b", "\n", "c "], ["<", "b>"], ['{"a"', ": 1}"]):
        deltas = build(format_, texts)
        assert content_of(deltas) == tokens_of(deltas) == "".join(texts)


@pytest.mark.parametrize("streams", [True, False])
def test_a_call_has_no_log_probabilities(streams: bool) -> None:
    deltas = build(HERMES, ["I look.", *CALL, "\n", "Done."], streams=streams)
    assert (content_of(deltas), tokens_of(deltas)) == ("I look.\nDone.", "I look.\nDone.")


@pytest.mark.parametrize("streams", [True, False])
def test_white_space_behind_a_call_is_no_content(streams: bool) -> None:
    deltas = build(HERMES, [*CALL, "\n"], streams=streams)
    assert [delta.content for delta in deltas if delta.content] == []
    assert [call.name for delta in deltas for call in delta.tool_calls if call.name] == ["f"]
    assert deltas[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ['{"name": "Alice", "age": 30}', '{"name": "g", "parameters": {}}', '{"name": "f"}'])
def test_json_with_a_name_is_no_call_in_a_format_without_marks(text: str) -> None:
    deltas = build(BARE, [text])
    assert (content_of(deltas), deltas[-1].finish_reason) == (text, "stop")


def test_a_known_tool_is_called_in_a_format_without_marks() -> None:
    deltas = build(BARE, ['{"name": "f", "parameters": {"a": 1}}'])
    assert [(call.name, call.arguments) for delta in deltas for call in delta.tool_calls] == [("f", '{"a": 1}')]


@pytest.mark.parametrize("format_", [HERMES, BARE], ids=["hermes", "bare"])
def test_a_call_that_is_nested_too_deeply_is_content(format_: ToolFormat) -> None:
    text = format_.begin + '{"a": ' + "[" * 100_000 + format_.end
    assert content_of(build(format_, [text])).startswith(format_.begin + '{"a": [[')
