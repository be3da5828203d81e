"""The Messages API with Anthropic's Python client, on the echo model and on models of the mock upstream."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.e2e.clients.conftest import KEYS
from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.mock_upstream import MockUpstream

MODELS = ["echo", "row", "local", "claude"]
"""The echo model, one of the engine's process, and the mock upstream by OpenAI's protocol and by Anthropic's."""
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SHOWN = {"claude": "mock-model"}
"""Names in the answers of an upstream that are passed through."""
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION: Any = [{"role": "user", "content": "one two three four"}]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path: Path = tmp_path_factory.mktemp("messages") / "models.json"
    row = {"kind": "openai", "base_url": running_mock.base_url}
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "row", **row, "upstream_model": "mock-model"},
        {"name": "local", "kind": "huggingface", "hf_repo": "mb=1"},
        {"name": "claude", "kind": "anthropic", "base_url": running_mock.base_url, "upstream_model": "mock-model"},
        {"name": "two-calls", **row, "upstream_model": "mock-model:calls=2"},
        {"name": "cut", **row, "upstream_model": "fault-cut"},
        {"name": "error-in-stream", **row, "upstream_model": "fault-error-in-stream"},
        {"name": "long", **row, "upstream_model": "fault-context-length"},
        *({"name": f"status-{code}", **row, "upstream_model": f"fault-status:code={code}"} for code in (400, 429, 529)),
    ]
    path.write_text(json.dumps({"models": models, "model_aliases": {"claude-*": "echo"}}))
    environment = {
        "MODELS_FILE": str(path),
        "API_KEYS": ",".join(KEYS),
        "MAX_REQUEST_BYTES": "2000000",
        "LOCAL_MODEL_LOADER": LOADER,
    }
    with LiveServer(environment) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=KEYS[0], max_retries=0) as client:
        yield client


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", MODELS)
def test_a_message(client: anthropic.Anthropic, model: str) -> None:
    message = client.messages.create(model=model, max_tokens=100, system="Be brief.", messages=QUESTION)
    assert "one two three four" in text_of(message)
    assert (message.role, message.type, message.stop_reason) == ("assistant", "message", "end_turn")
    assert message.model == SHOWN.get(model, model)
    assert message.id.startswith("msg_")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_a_stream(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=100, messages=QUESTION) as stream:
        parts = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(parts) > 2
    assert "".join(parts) == text_of(message)
    assert "one two three four" in text_of(message)
    assert (message.model, message.stop_reason) == (SHOWN.get(model, model), "end_turn")
    assert message.usage.output_tokens > 0
    complete = client.messages.create(model=model, max_tokens=100, messages=QUESTION)
    assert message.usage.input_tokens == complete.usage.input_tokens


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_ends_at_max_tokens(client: anthropic.Anthropic, model: str) -> None:
    message = client.messages.create(model=model, max_tokens=2, messages=QUESTION)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["complete", "streamed"])
def test_two_turns_with_a_tool(client: anthropic.Anthropic, model: str, is_streamed: bool) -> None:
    asked: dict[str, Any] = {
        "model": model, "max_tokens": 100, "tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"},
    }  # fmt: skip
    if is_streamed:
        with client.messages.stream(messages=QUESTION, **asked) as stream:
            message: Any = stream.get_final_message()
    else:
        message = client.messages.create(messages=QUESTION, **asked)
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert (message.stop_reason, call.name, isinstance(call.input["city"], str)) == ("tool_use", "get_weather", True)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "It is sunny."}]}
    turns = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    final = client.messages.create(model=model, max_tokens=100, tools=[WEATHER], messages=turns)
    assert final.stop_reason == "end_turn"
    assert text_of(final)


def test_the_clients_tool_runner(client: anthropic.Anthropic) -> None:
    cities = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the weather of a city.

        Args:
            city: Name of the city.
        """
        cities.append(city)
        return "It is sunny."

    question: Any = [{"role": "user", "content": "Call get_weather."}]
    runner = client.beta.messages.tool_runner(model="echo", max_tokens=100, tools=[get_weather], messages=question)
    assert text_of(runner.until_done()) == "It is sunny."
    assert len(cities) == 1


def test_parallel_calls_of_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="two-calls", max_tokens=100, messages=QUESTION, tools=[WEATHER]) as stream:
        message = stream.get_final_message()
    calls: list[Any] = [block for block in message.content if block.type == "tool_use"]
    assert len({call.id for call in calls}) == 2
    assert all(isinstance(call.input["city"], str) for call in calls)


def test_an_image_reaches_the_upstream(client: anthropic.Anthropic, mock: MockUpstream) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    client.messages.create(model="row", max_tokens=10, messages=[{"role": "user", "content": content}])
    (message,) = json.loads(mock.requests()[-1]["body"])["messages"]
    image, text = message["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    assert text == {"type": "text", "text": "What is it?"}


@pytest.mark.parametrize("model", MODELS)
def test_tokens_are_counted(client: anthropic.Anthropic, model: str) -> None:
    short = client.messages.count_tokens(model=model, messages=QUESTION).input_tokens
    long: Any = [{"role": "user", "content": "one two three four " * 10}]
    assert 0 < short < client.messages.count_tokens(model=model, messages=long, system="Be brief.").input_tokens


def test_a_structured_output(client: anthropic.Anthropic) -> None:
    message = client.messages.parse(model="echo", max_tokens=200, messages=QUESTION, output_format=Person)
    assert isinstance(message.parsed_output, Person)


def test_models_are_listed_page_by_page(client: anthropic.Anthropic) -> None:
    names = [model.id for model in client.models.list(limit=2)]
    assert names[:4] == ["echo", "row", "local", "claude"]
    assert len(names) == 11
    model = client.models.retrieve("row")
    assert (model.id, model.display_name, model.type) == ("row", "row", "model")


def test_an_alias_answers_under_its_name(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=QUESTION)
    assert (message.model, text_of(message)) == ("claude-haiku-4-5", "one two three four")


def test_the_other_root_and_the_other_header(server: LiveServer) -> None:
    headers = {"x-api-key": KEYS[1], "authorization": ""}
    with anthropic.Anthropic(base_url=f"{server.url}/anthropic", api_key="x", default_headers=headers) as client:
        assert text_of(client.messages.create(model="echo", max_tokens=10, messages=QUESTION)) == "one two three four"
        assert client.models.retrieve("echo").id == "echo"


@pytest.mark.parametrize(
    ("model", "expected", "type_"),
    [
        ("nope", anthropic.NotFoundError, "not_found_error"),
        ("status-400", anthropic.BadRequestError, "invalid_request_error"),
        ("status-429", anthropic.RateLimitError, "rate_limit_error"),
        ("status-529", anthropic.InternalServerError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["complete", "streamed"])
def test_a_failure_before_the_answer(
    client: anthropic.Anthropic, model: str, expected: type[anthropic.APIStatusError], type_: str, is_streamed: bool
) -> None:
    with pytest.raises(expected) as caught:
        client.messages.create(model=model, max_tokens=10, messages=QUESTION, stream=is_streamed)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", type_)
    assert caught.value.request_id == body["request_id"]


@pytest.mark.parametrize("path", ["messages", "count", "models", "model"])
def test_a_wrong_key(server: LiveServer, path: str) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as client:
        calls = {
            "messages": lambda: client.messages.create(model="echo", max_tokens=10, messages=QUESTION),
            "count": lambda: client.messages.count_tokens(model="echo", messages=QUESTION),
            "models": lambda: client.models.list(),
            "model": lambda: client.models.retrieve("echo"),
        }
        with pytest.raises(anthropic.AuthenticationError) as caught:
            calls[path]()
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")


def test_errors_of_the_list_of_models(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nope") as caught:
        client.models.retrieve("nope")
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.models.list(limit=1001)


def test_a_context_overflow_has_the_words_that_start_a_compaction(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        client.messages.create(model="long", max_tokens=10, messages=QUESTION)


def test_a_body_above_the_limit(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="echo", max_tokens=10, messages=[{"role": "user", "content": "x" * 2_000_001}])
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("model", ["cut", "error-in-stream"])
def test_a_stream_that_breaks_raises(client: anthropic.Anthropic, model: str) -> None:
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(model=model, max_tokens=100, messages=QUESTION) as stream,
    ):
        stream.until_done()
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
