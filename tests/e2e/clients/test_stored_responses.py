"""State of the Responses API with the official Python client, in SQLite and in PostgreSQL.

The models are the echo model, which repeats the last message of the user, and one that is translated for an upstream
which records the messages that it gets.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.postgres_server import PostgresServer, running_postgres
from tests.support.raw_server import RawServer, read_request
from tests.support.waiting import wait_until

TOOL: Any = {"type": "function", "name": "add", "parameters": None, "strict": None}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
OWN_RESPONSE = f"resp_{'0' * 32}"


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


class Model:
    """A chat model that calls a tool if it has one, and otherwise counts its messages.

    A message `wait` holds the answer back until `go_on` is set, and `cut` breaks it off.
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.paths: list[str] = []
        self.go_on = threading.Event()
        self.server = RawServer(self._serve)

    def _serve(self, client: socket.socket) -> None:
        head, _, body = read_request(client).partition(b"\r\n\r\n")
        payload = json.loads(body)
        self.paths.append(head.split(b" ")[1].decode())
        if "/responses" in self.paths[-1]:
            self._respond(client)
            return
        self.messages = payload["messages"]
        last = self.messages[-1]
        if last["role"] == "user" and payload.get("tools"):
            client.sendall(HEAD + chunk({"tool_calls": [CALL]}) + chunk({}, "tool_calls") + b"data: [DONE]\n\n")
            return
        client.sendall(HEAD + chunk({"role": "assistant", "content": f"{len(self.messages)}"}))
        if last["content"] == "wait":
            self.go_on.wait(20)
        if last["content"] != "cut":
            client.sendall(chunk({}, "stop") + b"data: [DONE]\n\n")

    def _respond(self, client: socket.socket) -> None:
        answer: Any = {"id": f"resp_{'a' * 48}", "object": "response", "status": "completed", "output": []}
        if not self.paths[-1].endswith("/responses"):
            answer = {"object": "answered.by.the.upstream"}
        body = json.dumps(answer)
        client.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )


@pytest.fixture(scope="module")
def running_model() -> Iterator[Model]:
    model = Model()
    with model.server:
        yield model


@pytest.fixture
def model(running_model: Model) -> Model:
    running_model.messages = []
    running_model.paths.clear()
    running_model.go_on.clear()
    return running_model


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, running_model: Model, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("server")
    row = {"kind": "openai", "base_url": f"{running_model.server.url}/v1"}
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "counts", **row, "responses": "translated"},
        {"name": "auto", **row},
        {"name": "native", **row, "responses": "native"},
        {"name": "away", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "responses": "native"},
        {"name": "routed", "targets": ["away"], "fallbacks": ["counts"], "retries": 0},
    ]
    (folder / "models.json").write_text(json.dumps(models))
    settings = {"MODELS_FILE": str(folder / "models.json"), "DATA_DIR": str(folder)}
    if request.param == "postgres":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres").create_database("responses")
    with LiveServer(settings) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def roles_and_texts(messages: list[Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_chain_has_the_input_and_output_of_all_responses(
    client: openai.OpenAI, model: Model, is_streamed: bool
) -> None:
    first = client.responses.create(model="counts", input="one", instructions="Be brief.")
    assert model.messages[0] == {"role": "system", "content": "Be brief."}
    second = client.responses.create(model="counts", input="two", previous_response_id=first.id)
    if is_streamed:
        with client.responses.stream(model="counts", input="three", previous_response_id=second.id) as stream:
            third = stream.until_done().get_final_response()
    else:
        third = client.responses.create(model="counts", input="three", previous_response_id=second.id)  # type: ignore[assignment]
    assert third.previous_response_id == second.id
    assert roles_and_texts(model.messages) == [
        ("user", "one"), ("assistant", "2"), ("user", "two"), ("assistant", "3"), ("user", "three"),
    ]  # fmt: skip
    again = client.responses.retrieve(third.id)
    assert again.output_text == third.output_text == "5"
    assert again.store is True  # type: ignore[attr-defined]
    (item,) = client.responses.input_items.list(third.id)
    assert item.type == "message"
    client.responses.delete(third.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(third.id)


def test_an_earlier_response_that_was_deleted_ends_the_chain(client: openai.OpenAI) -> None:
    first = client.responses.create(model="echo", input="one")
    second = client.responses.create(model="echo", input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="echo", input="three", previous_response_id=second.id)
    assert (raised.value.param, raised.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("model_name", ["echo", "counts", "auto"])
def test_a_response_of_another_caller_is_unknown(server: LiveServer, client: openai.OpenAI, model_name: str) -> None:
    first = client.responses.create(model="echo", input="one")
    (item,) = first.output
    assert item.id is not None
    other = client.with_options(api_key="other")
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError) as missing:
        other.responses.create(model="echo", input=[{"type": "item_reference", "id": item.id}])
    assert (missing.value.param, missing.value.code) == ("input", None)
    if model_name != "auto":
        with pytest.raises(openai.BadRequestError) as raised:
            other.responses.create(model=model_name, input="two", previous_response_id=first.id)
        assert raised.value.code == "previous_response_not_found"


def test_a_response_that_is_not_stored_cannot_be_continued(client: openai.OpenAI) -> None:
    first = client.responses.create(model="echo", input="one", store=False)
    assert first.store is False  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="echo", input="two", previous_response_id=first.id)


def test_tools_over_a_chain(client: openai.OpenAI, model: Model) -> None:
    first = client.responses.create(model="counts", input="1 + 2?", tools=[TOOL])
    (call,) = first.output
    assert call.type == "function_call"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
    second = client.responses.create(model="counts", input=[output], previous_response_id=first.id)
    assert second.output_text == "3"
    assert [message["role"] for message in model.messages] == ["user", "assistant", "tool"]
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call call_1"):
        client.responses.create(model="counts", input="And 2 + 2?", previous_response_id=first.id)
    with pytest.raises(openai.BadRequestError, match="No tool call found for function call output with call_id call_2"):
        client.responses.create(
            model="counts", input=[output, {**output, "call_id": "call_2"}], previous_response_id=first.id
        )


def test_items_by_reference(client: openai.OpenAI, model: Model) -> None:
    first = client.responses.create(model="counts", input="one")
    (item,) = first.output
    reference: Any = {"type": "item_reference", "id": item.id}
    question: Any = {"role": "user", "content": "two"}
    second = client.responses.create(model="counts", input=[question, reference, question])
    assert roles_and_texts(model.messages) == [("user", "two"), ("assistant", "1"), ("user", "two")]
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"] * 3


def test_a_conversation(client: openai.OpenAI, model: Model) -> None:
    conversation = client.conversations.create(items=[{"role": "developer", "content": "Count."}])
    first = client.responses.create(model="counts", input="one", conversation=conversation.id)
    assert first.conversation is not None
    assert first.conversation.id == conversation.id
    with client.responses.stream(model="counts", input="two", conversation={"id": conversation.id}) as stream:
        stream.until_done()
    assert roles_and_texts(model.messages) == [
        ("system", "Count."), ("user", "one"), ("assistant", "2"), ("user", "two"),
    ]  # fmt: skip
    client.responses.create(model="counts", input="three", conversation=conversation.id, store=False)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    texts = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["Count.", "one", "2", "two", "4"]
    same: Any = {"id": items[0].id, "role": "user", "content": "again"}
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="counts", input=[same], conversation=conversation.id)
    assert raised.value.code == "duplicate_item"


def assert_unlocked(client: openai.OpenAI, conversation: str) -> None:
    def is_unlocked() -> bool:
        try:
            client.responses.create(model="echo", input="Hi", conversation=conversation, store=False)
        except openai.BadRequestError:
            return False
        return True

    wait_until(is_unlocked, "the conversation is unlocked")


def test_two_calls_at_once_on_one_conversation(client: openai.OpenAI, model: Model) -> None:
    conversation = client.conversations.create().id
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.responses.create, model="counts", input="wait", conversation=conversation)
        wait_until(lambda: model.messages, "the model was asked")
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(model="echo", input="Hi", conversation=conversation)
        assert (raised.value.code, raised.value.param) == ("conversation_locked", "conversation")
        model.go_on.set()
        assert first.result().output_text == "1"
    client.responses.create(model="echo", input="Hi", conversation=conversation)


def test_a_stream_unlocks_its_conversation_before_it_ends(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    with client.responses.create(model="echo", input="Hi", conversation=conversation, stream=True) as stream:
        for event in stream:
            if event.type == "response.completed":
                client.responses.create(model="echo", input="Hi", conversation=conversation)


def test_a_client_that_disconnects_unlocks_its_conversation(
    server: LiveServer, client: openai.OpenAI, model: Model
) -> None:
    conversation = client.conversations.create().id
    payload = {"model": "counts", "input": "wait", "stream": True, "conversation": conversation}
    headers = {"Authorization": "Bearer any"}
    with requests.post(
        f"{server.base_url}/responses", json=payload, headers=headers, stream=True, timeout=20
    ) as response:
        next(response.iter_content(None))
    assert_unlocked(client, conversation)
    assert not list(client.conversations.items.list(conversation))


def test_a_failure_unlocks_its_conversation_and_adds_nothing(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    for is_streamed in (False, True):
        with pytest.raises(openai.APIError) as raised:
            list(client.responses.create(model="counts", input="cut", conversation=conversation, stream=is_streamed))
        assert raised.value.code == "upstream_cut"
        assert_unlocked(client, conversation)
    assert not list(client.conversations.items.list(conversation))


def test_a_failover_stores_once(client: openai.OpenAI, model: Model) -> None:
    conversation = client.conversations.create().id
    first = client.responses.create(model="routed", input="one", conversation=conversation)
    assert client.responses.retrieve(first.id).output_text == "1"
    assert len(list(client.conversations.items.list(conversation))) == 2


def test_an_unknown_id_at_a_fallback_does_not_hide_why_the_first_target_failed(client: openai.OpenAI) -> None:
    """The id is that of the first target, and a client may retry what it could not answer."""
    with pytest.raises(openai.InternalServerError) as raised:
        client.responses.create(model="routed", input="two", previous_response_id="resp_of_the_upstream")
    assert raised.value.code == "upstream_unreachable"


@pytest.mark.parametrize("name", ["auto", "native"])
def test_an_own_response_is_continued_by_a_translated_call(client: openai.OpenAI, model: Model, name: str) -> None:
    """The upstream does not know the response."""
    first = client.responses.create(model="counts", input="one")
    client.responses.create(model=name, input="two", previous_response_id=first.id)
    assert model.paths == ["/v1/chat/completions"] * 2
    assert len(model.messages) == 3


@pytest.mark.parametrize("id", ["resp_of_the_upstream", OWN_RESPONSE])
def test_an_unknown_response_is_the_upstreams(client: openai.OpenAI, model: Model, id: str) -> None:
    assert client.responses.create(model="auto", input="two", previous_response_id=id).id == f"resp_{'a' * 48}"
    assert model.paths == ["/v1/responses"]


@pytest.mark.parametrize("metadata", [{"k": "v" * 513}, {"k": 1}])
def test_metadata_that_cannot_be_stored(client: openai.OpenAI, metadata: Any) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="echo", input="Hi", metadata=metadata)
    assert raised.value.param == "metadata.k"


def test_input_tokens(client: openai.OpenAI, model: Model) -> None:
    first = client.responses.create(model="counts", input="one two three")
    assert first.usage is not None
    counted = client.responses.input_tokens.count(model="counts", input="one two three")
    assert (counted.input_tokens, counted.object) == (first.usage.input_tokens, "response.input_tokens")
    tool = {**TOOL, "description": "Adds two numbers, which may be negative."}
    with_tools = client.responses.input_tokens.count(model="counts", input="one two three", tools=[tool])
    assert with_tools.input_tokens > counted.input_tokens + 10
    longer = client.responses.input_tokens.count(model="counts", input="four", previous_response_id=first.id)
    assert longer.input_tokens > counted.input_tokens
    tool: Any = {"type": "function", "name": "f", "description": "word " * 50, "parameters": {}, "strict": False}
    with_tool = client.responses.input_tokens.count(model="counts", input="one two three", tools=[tool])
    assert with_tool.input_tokens > counted.input_tokens + 50
    with pytest.raises(openai.BadRequestError):
        client.responses.input_tokens.count(model="counts", input="four", previous_response_id=OWN_RESPONSE)
    assert model.paths == ["/v1/chat/completions"]


def test_a_compaction_replaces_what_the_model_said(client: openai.OpenAI, model: Model) -> None:
    first = client.responses.create(model="counts", input="one")
    compacted = client.responses.compact(model="counts", input="two", previous_response_id=first.id)
    assert "Summarize" in model.messages[-1]["content"]
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    assert compacted.object == "response.compaction"
    assert compacted.usage.total_tokens > 0
    sent_back: Any = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
    assert "4" not in sent_back[-1]["encrypted_content"].split(), "the summary is sealed"
    client.responses.create(model="counts", input=[*sent_back, {"role": "user", "content": "three"}])
    texts = [str(message["content"]) for message in model.messages]
    assert "Summary of the conversation before:\n\n4" in texts[2]
    sent_back[-1]["encrypted_content"] = "forged"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="counts", input=sent_back)
    assert raised.value.param == "input[2].encrypted_content"


@pytest.mark.parametrize("path", ["responses/input_tokens", "responses/compact"])
def test_an_upstream_of_the_same_protocol_answers_itself(server: LiveServer, model: Model, path: str) -> None:
    response = requests.post(f"{server.base_url}/{path}", json={"model": "native", "input": "Hi"}, timeout=20)
    assert response.json() == {"object": "answered.by.the.upstream"}
    assert model.paths == [f"/v1/{path}"]
