"""The Responses API with the official Python client, on the echo model and on a model of the mock upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
MODELS = ["echo", "native", "translated", "lacking"]
"""The echo model, and models of the mock upstream that are passed through, translated, and found to need it."""


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def responses_server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path: Path = tmp_path_factory.mktemp("models") / "models.json"
    row = {"kind": "openai", "base_url": running_mock.base_url}
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "native", **row, "upstream_model": "mock-model"},
        {"name": "translated", **row, "upstream_model": "mock-model", "responses": "translated"},
        {"name": "lacking", **row, "upstream_model": "fault-no-responses"},
        {"name": "cut", **row, "upstream_model": "fault-cut"},
        {"name": "cut-translated", **row, "upstream_model": "fault-cut", "responses": "translated"},
        {"name": "refused", **row, "upstream_model": "fault-context-length"},
    ]
    path.write_text(json.dumps(models))
    with LiveServer({"MODELS_FILE": str(path)}) as server:
        yield server


@pytest.fixture(scope="module")
def client(responses_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=responses_server.base_url, api_key="any", max_retries=0) as client:
        yield client


def test_a_response_without_any_configuration(echo_client: openai.OpenAI) -> None:
    response = echo_client.responses.create(model="mock-gpt-model", input="Hello")
    assert (response.output_text, response.status) == ("Hello", "completed")
    assert response.usage is not None
    assert response.usage.total_tokens == 2


@pytest.mark.parametrize("model", MODELS)
def test_a_response(client: openai.OpenAI, model: str) -> None:
    response = client.responses.create(
        model=model, input="Hello there", instructions="Be brief.", metadata={"a": "b"}, temperature=0.5
    )
    assert "Hello there" in response.output_text
    shown = "mock-model" if model == "native" else model
    assert (response.model, response.instructions, response.metadata) == (shown, "Be brief.", {"a": "b"})
    assert (response.temperature, response.error, response.incomplete_details) == (0.5, None, None)
    assert response.usage is not None
    assert response.usage.output_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_the_stream_helper(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="one two three") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert len(deltas) > 2
    assert "".join(deltas) == final.output_text
    assert final.usage is not None


@pytest.mark.parametrize("model", MODELS)
def test_two_turns_with_a_tool(client: openai.OpenAI, model: str) -> None:
    question: Any = {"role": "user", "content": "Call get_weather for Rome"}
    first = client.responses.create(model=model, input=[question], tools=[TOOL], tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.status, first.tools[0].type) == ("get_weather", "completed", "function")
    assert "city" in json.loads(call.arguments)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "It is sunny."}
    second = client.responses.create(model=model, input=[question, *first.output, output], tools=[TOOL])  # type: ignore[list-item]
    assert second.output_text


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_call(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(
        model=model, input="Call get_weather", tools=[TOOL], tool_choice={"type": "function", "name": "get_weather"}
    ) as stream:
        types = [event.type for event in stream]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert json.loads(call.arguments)
    assert "response.function_call_arguments.done" in types


def test_structured_output(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model="echo", input="Somebody", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    with client.responses.stream(model="echo", input="Somebody", text_format=Person) as stream:
        stream.until_done()
        assert isinstance(stream.get_final_response().output_parsed, Person)


def test_logprobs_are_shown_on_request(client: openai.OpenAI) -> None:
    content = client.responses.create(
        model="echo", input="Hello there", include=["message.output_text.logprobs"], top_logprobs=2
    ).output[0]
    assert content.type == "message"
    (part,) = content.content
    assert part.type == "output_text"
    assert [item.token for item in part.logprobs or ()] == ["Hello", " there"]


def test_a_limit_makes_the_response_incomplete(client: openai.OpenAI) -> None:
    with client.responses.stream(model="echo", input="one two three", max_output_tokens=2) as stream:
        types = [event.type for event in stream]
    assert types[-1] == "response.incomplete"
    response = client.responses.create(model="echo", input="one two three", max_output_tokens=2)
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_hosted_tool_that_is_not_needed_is_left_out_and_told(client: openai.OpenAI) -> None:
    answer = client.responses.with_raw_response.create(model="echo", input="Hello", tools=[{"type": "web_search"}])
    assert answer.headers["x-openai-compat-adapted"] == "tools.web_search=dropped"
    assert answer.parse().tools[0].type == "web_search"


@pytest.mark.parametrize("model", ["cut", "cut-translated"])
def test_a_truncated_answer_raises(client: openai.OpenAI, model: str) -> None:
    types: list[str] = []
    with client.responses.create(model=model, input="Hello there", stream=True) as stream:  # noqa: SIM117
        with pytest.raises(openai.APIError) as raised:
            types.extend(event.type for event in stream)
    assert types[0] == "response.created"
    assert "response.completed" not in types
    assert raised.value.code == "upstream_cut"
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model=model, input="Hello there")


def test_an_upstreams_refusal_keeps_its_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="refused", input="Hello", stream=True)
    assert raised.value.code == "context_length_exceeded"


def test_unknown_ids(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="echo", input="Hello", previous_response_id="resp_unknown")
    assert (raised.value.param, raised.value.code) == ("previous_response_id", "previous_response_not_found")
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(model="echo", input=[{"type": "item_reference", "id": "rs_1"}])
    assert (missing.value.param, missing.value.code) == ("input", None)


@pytest.mark.parametrize("root", ["/openai/v1", "/openai/deployments/echo", "/openai", "/api/v1", ""])
def test_every_root_of_openais_and_azures_clients(responses_server: LiveServer, root: str) -> None:
    with openai.OpenAI(base_url=responses_server.url + root, api_key="any", max_retries=0) as client:
        assert client.responses.create(model="echo", input="Hello").output_text == "Hello"


def test_azures_client(responses_server: LiveServer) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=responses_server.url, api_key="any", api_version="2025-04-01-preview", max_retries=0
    ) as client:
        assert client.responses.create(model="echo", input="Hello").output_text == "Hello"
