"""OpenAI's client in front of Claude, with tools and thinking over two turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
RESPONSES_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
QUESTION: Any = {"role": "user", "content": "the weather?"}
THOUGHT = "The user said something, so I answer."


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    row = {"kind": "anthropic", "base_url": mock.url, "cache": "auto"}
    rows = [
        {**row, "name": "claude", "upstream_model": "claude-sonnet-4-5"},
        {**row, "name": "redacted", "upstream_model": "mock-model:redacted=1", "thinking": "budget"},
        {**row, "name": "overloaded", "upstream_model": "fault-status:code=529"},
        {"name": "routed", "targets": ["overloaded"], "fallbacks": ["claude"]},
    ]
    file = tmp_path_factory.mktemp("rows") / "models.json"
    file.write_text(json.dumps(rows))
    with LiveServer({"MODELS_FILE": str(file)}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def last_body(mock: MockUpstream) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(mock.requests()[-1]["body"])
    return body


def streamed_message(client: openai.OpenAI, **call: Any) -> dict[str, Any]:
    """Return the assistant's message of a stream, whose lists are joined as a simple client joins them."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "reasoning_details": []}
    calls: dict[int, dict[str, Any]] = {}
    for chunk in client.chat.completions.create(stream=True, **call):
        delta = chunk.choices[0].delta.model_dump(exclude_none=True)
        message["reasoning_details"] += delta.get("reasoning_details", [])
        for part in delta.get("tool_calls", []):
            known = calls.setdefault(part["index"], {**part, "function": {"name": "", "arguments": ""}})
            for key, value in part["function"].items():
                known["function"][key] += value
    return {**message, "tool_calls": [{**calls[index], "type": "function"} for index in sorted(calls)]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude", "redacted"])
def test_chat_goes_on_thinking_after_a_call(
    client: openai.OpenAI, mock: MockUpstream, model: str, stream: bool
) -> None:
    call: Any = {"model": model, "tools": [CHAT_TOOL], "reasoning_effort": "low"}
    if stream:
        message = streamed_message(client, messages=[QUESTION], **call)
    else:
        first = client.chat.completions.create(messages=[QUESTION], **call)
        message = first.choices[0].message.model_dump(exclude_none=True)
        assert message.get("reasoning_content", "") == ("" if model == "redacted" else THOUGHT)
    tool_call = message["tool_calls"][0]
    assert json.loads(tool_call["function"]["arguments"]) == {"city": "the weather?"}
    answer = {"role": "tool", "tool_call_id": tool_call["id"], "content": "warm"}
    second = client.chat.completions.create(messages=[QUESTION, message, answer], **call)
    assert second.choices[0].finish_reason == "stop"
    sent = last_body(mock)
    kind = "redacted_thinking" if model == "redacted" else "thinking"
    assert [block["type"] for block in sent["messages"][1]["content"]] == [kind, "tool_use"]
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2048}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude", "redacted"])
def test_responses_seal_what_claude_needs_to_go_on(
    client: openai.OpenAI, mock: MockUpstream, model: str, stream: bool
) -> None:
    call: Any = {"model": model, "tools": [RESPONSES_TOOL], "reasoning": {"effort": "low"}, "store": False,
                 "include": ["reasoning.encrypted_content"]}  # fmt: skip
    if stream:
        with client.responses.stream(input=[QUESTION], **call) as events:
            first = events.get_final_response()
    else:
        first = client.responses.create(input=[QUESTION], **call)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    output = {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "warm"}  # type: ignore[union-attr]
    items: Any = [QUESTION, *(item.model_dump(exclude_none=True) for item in first.output), output]
    second = client.responses.create(input=items, **call)
    assert second.output_text == "You said: the weather?"
    blocks = last_body(mock)["messages"][1]["content"]
    kind = "redacted_thinking" if model == "redacted" else "thinking"
    assert [block["type"] for block in blocks] == [kind, "tool_use"]


def test_usage_tells_what_the_cache_took_and_gave(client: openai.OpenAI) -> None:
    system: Any = {"role": "system", "content": "be brief"}
    first = client.chat.completions.create(model="claude", messages=[system, QUESTION]).usage
    turns: Any = [system, QUESTION, {"role": "assistant", "content": "yes"}, QUESTION]
    second = client.chat.completions.create(model="claude", messages=turns).usage
    assert first is not None
    assert second is not None
    written = first.model_dump()["prompt_tokens_details"]
    read = second.model_dump()["prompt_tokens_details"]
    assert (written["cached_tokens"], written["cache_write_tokens"]) == (0, 6)
    assert (read["cached_tokens"], read.get("cache_write_tokens")) == (6, None)
    assert first.prompt_tokens == 12


def test_an_overloaded_claude_is_replaced(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="routed", messages=[QUESTION])
    assert answer.choices[0].message.content == "You said: the weather?"


def test_what_claude_does_not_take_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="claude", messages=[QUESTION], n=2)
    assert refused.value.param == "n"
    reply = client.chat.completions.with_raw_response.create(model="claude", messages=[QUESTION], seed=7)
    assert reply.headers["x-openai-compat-adapted"] == "seed=dropped"
