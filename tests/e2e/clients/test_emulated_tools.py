"""Tools and structured output of a model without either, over all three APIs, with the official clients."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import requests

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request
from tests.support.scripted_chat import END, HEAD, chunk, text_events

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
QUESTION: Any = {"role": "user", "content": "What is the weather in Paris?"}
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
EMULATED = {"tools": "prompt", "response_format": "prompt"}
BAD_CALL = '<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>'


class Model:
    """A chat API of plain text that sends one of its answers after the other, in parts of three characters."""

    def __init__(self) -> None:
        self.answers: list[str | Callable[[socket.socket], None]] = []
        self.requests: list[dict[str, Any]] = []

    def __call__(self, client: socket.socket) -> None:
        payload = json.loads(read_request(client).partition(b"\r\n\r\n")[2])
        self.requests.append(payload)
        answer = self.answers.pop(0)
        if callable(answer):
            answer(client)
        else:
            client.sendall(HEAD + text_events(*(answer[at : at + 3] for at in range(0, len(answer), 3))))

    @property
    def prompt(self) -> str:
        """The texts of the last request."""
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.requests[-1]["messages"])


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def server(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with RawServer(model) as api:
        entries = [
            {"name": "drops", "kind": "external", "base_url": api.url},
            {"name": "prompts", "kind": "external", "base_url": api.url, **EMULATED},
            {"name": "forwards", "kind": "openai", "base_url": api.url, **EMULATED},
            {"name": "again", "kind": "external", "base_url": api.url, "tools": "prompt", "fallbacks": ["drops"]},
        ]
        file = tmp_path_factory.mktemp("models") / "models.json"
        file.write_text(json.dumps(entries))
        with LiveServer({"MODELS_FILE": str(file)}) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def collect(client: openai.OpenAI, **options: Any) -> tuple[str, list[tuple[str, str]], str | None]:
    """Return the text, the calls and the finish reason of a streamed chat, read as agents read it."""
    texts, calls, reason = [], {}, None
    for part in client.chat.completions.create(messages=[QUESTION], stream=True, **options):
        choice = part.choices[0]
        texts.append(choice.delta.content or "")
        for call in choice.delta.tool_calls or ():
            name, arguments = calls.get(call.index, ("", ""))
            assert call.function is not None
            calls[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
        reason = choice.finish_reason or reason
    return "".join(texts), list(calls.values()), reason


@pytest.mark.parametrize("row", ["prompts", "forwards"])
def test_a_chat_with_a_tool_and_its_result(client: openai.OpenAI, model: Model, row: str) -> None:
    model.answers = [CALL, "It is sunny."]
    response = client.chat.completions.with_raw_response.create(model=row, messages=[QUESTION], tools=[TOOL])
    assert response.headers["x-openai-compat-adapted"] == "tools=emulated"
    assert '{"name": "get_weather"' in model.prompt
    assert "tools" not in model.requests[-1]
    choice = response.parse().choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees"}
    history: Any = [QUESTION, choice.message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(model=row, messages=history, tools=[TOOL])
    assert answer.choices[0].message.content == "It is sunny."
    assert answer.choices[0].finish_reason == "stop"
    assert f"assistant: {CALL}" in model.prompt
    assert 'user: <tool_response name="get_weather">\nSunny, 21 degrees\n</tool_response>' in model.prompt


@pytest.mark.parametrize("row", ["prompts", "forwards"])
def test_a_streamed_chat_with_parallel_calls(client: openai.OpenAI, model: Model, row: str) -> None:
    model.answers = [f"I look.\n{CALL}\n{CALL}"]
    text, calls, reason = collect(client, model=row, tools=[TOOL])
    assert (text.strip(), reason) == ("I look.", "tool_calls")
    assert calls == [("get_weather", '{"city": "Paris"}')] * 2


def test_text_is_streamed_as_it_arrives(client: openai.OpenAI, model: Model) -> None:
    """The API sends the rest of its answer only after the client has received the beginning."""
    has_received = threading.Event()

    def answer(api: socket.socket) -> None:
        api.sendall(HEAD + chunk({"content": "It is "}))
        assert has_received.wait(10)
        api.sendall(chunk({"content": "sunny."}) + chunk({}, "stop") + END)

    model.answers = [answer]
    stream = client.chat.completions.create(model="prompts", messages=[QUESTION], tools=[TOOL], stream=True)
    assert "It is" in next(text for part in stream if (text := part.choices[0].delta.content))
    has_received.set()
    assert "".join(part.choices[0].delta.content or "" for part in stream).strip() == "sunny."


@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_call_is_an_error(server: LiveServer, model: Model, stream: bool) -> None:
    model.answers = [BAD_CALL]
    body = {"model": "prompts", "messages": [QUESTION], "tools": [TOOL], "stream": stream}
    reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (502, "invalid_model_answer")
    assert "'city' is missing" in error["message"]


def test_an_invalid_call_behind_text_ends_the_stream_with_an_error(client: openai.OpenAI, model: Model) -> None:
    model.answers = [f"I look.{BAD_CALL}"]
    with pytest.raises(openai.APIError, match="'city' is missing"):
        collect(client, model="prompts", tools=[TOOL])


def test_an_invalid_call_is_tried_again_on_a_route(client: openai.OpenAI, model: Model) -> None:
    model.answers = [BAD_CALL, CALL]
    assert collect(client, model="again", tools=[TOOL])[1] == [("get_weather", '{"city": "Paris"}')]


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call(server: LiveServer, model: Model, stream: bool) -> None:
    body = {"model": "prompts", "messages": [QUESTION], "tools": [TOOL], "stream": stream, "tool_choice": "required"}
    model.answers = ["It is sunny."]
    reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "invalid_model_answer")
    model.answers = [CALL]
    reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
    assert (reply.status_code, "tool_calls" in reply.text) == (200, True)


def test_no_tools_are_described_for_the_choice_none(client: openai.OpenAI, model: Model) -> None:
    model.answers = ["It is sunny."]
    client.chat.completions.create(model="prompts", messages=[QUESTION], tools=[TOOL], tool_choice="none")
    assert model.prompt == f"user: {QUESTION['content']}"


def test_functions_of_the_older_form(client: openai.OpenAI, model: Model) -> None:
    model.answers = [CALL]
    function: Any = TOOL["function"]
    answer = client.chat.completions.create(model="prompts", messages=[QUESTION], functions=[function])
    call = answer.choices[0].message.function_call
    assert call is not None
    assert (call.name, answer.choices[0].finish_reason) == ("get_weather", "function_call")


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_responses_api(client: openai.OpenAI, model: Model, stream: bool) -> None:
    model.answers = [CALL, "It is sunny."]
    tool: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
    options: Any = {"model": "prompts", "input": QUESTION["content"], "tools": [tool]}
    if stream:
        with client.responses.stream(**options) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(**options)
    call = response.output[-1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Paris"}
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}]
    answer = client.responses.create(model="prompts", previous_response_id=response.id, input=result, tools=[tool])
    assert answer.output_text == "It is sunny."
    assert "Sunny\n</tool_response>" in model.prompt


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_messages_api(server: LiveServer, model: Model, stream: bool) -> None:
    model.answers = [f"I look.\n{CALL}", "It is sunny."]
    tool: Any = {"name": "get_weather", "input_schema": PARAMETERS}
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        options: Any = {"model": "prompts", "max_tokens": 100, "tools": [tool]}
        if stream:
            with client.messages.stream(messages=[QUESTION], **options) as events:
                message = events.get_final_message()
        else:
            message = client.messages.create(messages=[QUESTION], **options)
        assert message.stop_reason == "tool_use"
        text, call = message.content
        assert (text.type, call.type) == ("text", "tool_use")
        assert call.type == "tool_use"
        assert call.input == {"city": "Paris"}
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"}
        called = {"role": "assistant", "content": message.content}
        history: Any = [QUESTION, called, {"role": "user", "content": [result]}]
        answer = client.messages.create(messages=history, **options)
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "It is sunny."}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("format_", "answer", "expected"),
    [
        (FORMAT, '```json\n{"city": "Paris",}\n```', {"city": "Paris"}),
        ({"type": "json_object"}, '{"a": [1, 2]}', {"a": [1, 2]}),
        (FORMAT, "Paris", None),
        (FORMAT, '{"town": "Paris"}', None),
        ({"type": "json_object"}, "[1]", None),
    ],
)
def test_structured_output(
    server: LiveServer, model: Model, stream: bool, format_: Any, answer: str, expected: Any
) -> None:
    model.answers = [answer]
    body = {"model": "prompts", "messages": [QUESTION], "response_format": format_, "stream": stream}
    reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
    if expected is None:
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "invalid_model_answer")
        return
    assert reply.headers["x-openai-compat-adapted"] == "response_format=emulated"
    if stream:
        data = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        text = "".join(part["choices"][0]["delta"].get("content") or "" for part in data)
    else:
        text = reply.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == expected


def test_structured_output_beside_a_tool(client: openai.OpenAI, model: Model) -> None:
    model.answers = [CALL, '{"city": "Paris"}']
    options: Any = {"model": "prompts", "tools": [TOOL], "response_format": FORMAT}
    assert collect(client, **options)[1:] == ([("get_weather", '{"city": "Paris"}')], "tool_calls")
    assert collect(client, **options) == ('{"city": "Paris"}', [], "stop")


def test_dropped_tools(client: openai.OpenAI, model: Model) -> None:
    model.answers = ["It is sunny."]
    response = client.chat.completions.with_raw_response.create(
        model="drops", messages=[QUESTION], tools=[TOOL], tool_choice="auto"
    )
    assert response.headers["x-openai-compat-adapted"] == "tool_choice=dropped, tools=dropped"
    assert response.parse().choices[0].message.content == "It is sunny."
    assert model.prompt == f"user: {QUESTION['content']}"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_required_call_of_a_dropped_tool_is_refused_by_name(client: openai.OpenAI, model: Model, choice: Any) -> None:
    sent = len(model.requests)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="drops", messages=[QUESTION], tools=[TOOL], tool_choice=choice)
    assert (caught.value.param, caught.value.code) == ("tool_choice", "unsupported_parameter")
    assert "calls no tools" in caught.value.message
    assert len(model.requests) == sent


def test_a_row_that_sends_no_conversation_cannot_emulate(tmp_path: Path) -> None:
    request = {"body": {"q": "{{ last_user_message }}"}}
    entry = {"name": "m", "kind": "external", "base_url": "http://x", "request": request}
    file = tmp_path / "models.json"
    for option in ({"tools": "prompt"}, {"response_format": "prompt"}):
        file.write_text(json.dumps([{**entry, **option}]))
        with pytest.raises(ConfigurationError, match="system prompt and the conversation"):
            environment.load({"MODELS_FILE": str(file)})


@pytest.mark.parametrize("api", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
def test_the_agents_sdk_with_a_tool_and_a_typed_result(server: LiveServer, model: Model, api: str) -> None:
    agents: Any = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        asked.append(city)
        return "Sunny"

    @dataclass
    class Report:
        city: str
        degrees: int

    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            upstream = getattr(agents, api)(model="prompts", openai_client=client)
            tools = [agents.function_tool(get_weather)]
            agent = agents.Agent(name="a", instructions="Be brief.", model=upstream, tools=tools, output_type=Report)
            complete = await agents.Runner.run(agent, QUESTION["content"])
            streamed = agents.Runner.run_streamed(agent, QUESTION["content"])
            async for _ in streamed.stream_events():
                pass
            return [complete.final_output, streamed.final_output]

    model.answers = [CALL, '{"response": {"city": "Paris", "degrees": "21"}}'] * 2
    assert asyncio.run(run()) == [Report("Paris", 21)] * 2
    assert asked == ["Paris", "Paris"]
