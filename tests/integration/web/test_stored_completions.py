"""Stored chat completions and stored responses, by HTTP and with the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import openai
import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from openai_compat.core.errors import StorageUnavailableError
from openai_compat.services.openai_objects import new_id
from openai_compat.services.owner import owner_of
from openai_compat.storage.completions import CompletionStore
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import INPUT, NewObject
from tests.integration.web.conftest import MakeClient
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

MODEL = "mock-gpt-model"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    environ = {"DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    return create_app(environment.load(environ)).test_client()


@pytest.fixture
def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {token_hex(8)}"}


def chat(client: FlaskClient, key: dict[str, str], text: Any = "Hello!", **parameters: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], "store": True, **parameters}
    return client.post("/v1/chat/completions", json=body, headers=key)


def get(client: FlaskClient, key: dict[str, str], path: str = "") -> Any:
    response = client.get(f"/v1/chat/completions{path}", headers=key)
    assert response.status_code == 200, response.text
    return response.json


def test_a_completion_is_stored_with_its_request(client: FlaskClient, key: dict[str, str]) -> None:
    answer = chat(client, key, metadata={"k": "v"}, temperature=0.5, user="me", seed=7)
    completion = answer.json
    stored = get(client, key, f"/{completion['id']}")
    assert completion.items() <= stored.items()
    assert stored["request_id"] == answer.headers["x-request-id"]
    expected = {"metadata": {"k": "v"}, "temperature": 0.5, "top_p": 1.0, "seed": 7, "input_user": "me", "tools": None}
    assert expected.items() <= stored.items()
    messages = get(client, key, f"/{completion['id']}/messages")
    (message,) = messages["data"]
    assert message == {
        "role": "user",
        "content": "Hello!",
        "id": f"{completion['id']}-0",
        "name": None,
        "content_parts": None,
    }
    assert (messages["object"], messages["first_id"], messages["has_more"]) == ("list", message["id"], False)


def test_a_streamed_completion_is_stored_before_its_end(client: FlaskClient, key: dict[str, str]) -> None:
    """A client that has seen `[DONE]` can read the completion."""
    body = {"messages": [{"role": "user", "content": "One two three"}], "store": True, "stream": True}
    response = client.post("/v1/chat/completions", json=body, headers=key, buffered=False)
    at_end = [get(client, key)["data"] for event in response.response if b"[DONE]" in event]
    response.close()
    ((stored,),) = at_end
    assert stored["choices"][0]["message"]["content"] == "One two three"
    assert stored["choices"][0]["finish_reason"] == "stop"
    assert stored["usage"]["total_tokens"] > 0


def test_a_stream_that_cannot_be_stored_never_looks_complete(
    client: FlaskClient, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageUnavailableError

    monkeypatch.setattr(CompletionStore, "create", fail)
    streamed = chat(client, key, stream=True)
    assert streamed.status_code == 200
    assert "storage_unavailable" in streamed.text
    assert "[DONE]" not in streamed.text
    complete = chat(client, key)
    assert (complete.status_code, complete.json["error"]["code"]) == (503, "storage_unavailable")


def test_only_calls_that_ask_for_it_are_stored(client: FlaskClient, key: dict[str, str]) -> None:
    for store in (False, None):
        assert chat(client, key, store=store).status_code == 200
    assert chat(client, key, metadata={"k": 1}).status_code == 400
    assert get(client, key)["data"] == []


def test_lists_are_filtered_and_ordered(client: FlaskClient, key: dict[str, str]) -> None:
    ids = [chat(client, key, str(n), metadata={"parity": str(n % 2), "n": str(n)}).json["id"] for n in range(5)]
    assert [item["id"] for item in get(client, key)["data"]] == ids, "the oldest first"
    assert [item["id"] for item in get(client, key, "?order=desc&limit=2")["data"]] == ids[:2:-1]
    assert [item["id"] for item in get(client, key, "?metadata[parity]=1")["data"]] == ids[1::2]
    assert [item["id"] for item in get(client, key, "?metadata[parity]=1&metadata[n]=3")["data"]] == ids[3:4]
    assert get(client, key, "?model=unknown")["data"] == []
    page = get(client, key, f"?model={MODEL}&limit=2&after={ids[1]}")
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (ids[2:4], True)
    assert client.get("/v1/chat/completions?after=chatcmpl-x", headers=key).status_code == 400


def test_metadata_is_replaced_and_completions_deleted(client: FlaskClient, key: dict[str, str]) -> None:
    id = chat(client, key, metadata={"k": "1"}).json["id"]
    url = f"/v1/chat/completions/{id}"
    changed = client.post(url, json={"metadata": {"k": "2"}}, headers=key).json
    assert changed == get(client, key, f"/{id}")
    assert changed is not None
    assert changed["metadata"] == {"k": "2"}
    assert get(client, key, "?metadata[k]=1")["data"] == []
    assert len(get(client, key, "?metadata[k]=2")["data"]) == 1
    assert client.delete(url, headers={"Authorization": "Bearer other"}).status_code == 404
    deleted = client.delete(url, headers=key).json
    assert deleted == {"object": "chat.completion.deleted", "id": id, "deleted": True}
    assert client.get(url, headers=key).status_code == 404
    assert client.get(f"{url}/messages", headers=key).status_code == 404
    assert client.post(url, json={"metadata": {}}, headers=key).status_code == 404


def test_parts_of_a_message_are_kept(client: FlaskClient, key: dict[str, str]) -> None:
    parts = [{"type": "text", "text": "Hello!"}]
    id = chat(client, key, parts).json["id"]
    (message,) = get(client, key, f"/{id}/messages")["data"]
    assert (message["content"], message["content_parts"]) == (None, parts)


def test_an_upstream_keeps_its_own_completions(make_client: MakeClient, upstream: MockUpstream, tmp_path: Path) -> None:
    client = make_client(OPENAI_API_KEY="sk-1", OPENAI_BASE_URL=upstream.base_url, DATA_DIR=str(tmp_path / "data"))
    upstream.reset()
    client.post("/v1/chat/completions", json={"model": "mock-ok", "messages": [], "store": True})
    for path in ("", "?metadata[k]=v", "/chatcmpl-abc", "/chatcmpl-abc/messages"):
        client.get(f"/v1/chat/completions{path}")
    client.post("/v1/chat/completions/chatcmpl-abc", json={"metadata": {}})
    client.delete("/v1/chat/completions/chatcmpl-abc")
    assert [request["path"].partition("?")[0].removeprefix("/v1/chat/completions") for request in upstream.requests()][
        -6:
    ] == ["", "", "/chatcmpl-abc", "/chatcmpl-abc/messages", "/chatcmpl-abc", "/chatcmpl-abc"]
    assert not (tmp_path / "data").exists()


def test_a_translated_answer_of_an_upstream_is_stored_under_the_id_that_the_client_knows(
    make_client: MakeClient, upstream: MockUpstream, tmp_path: Path
) -> None:
    row = {"name": "mock-ok", "kind": "openai", "base_url": upstream.base_url, "profile": {"translate_responses": True}}
    (tmp_path / "models.json").write_text(json.dumps([row]))
    client = make_client(MODELS_FILE=str(tmp_path / "models.json"), DATA_DIR=str(tmp_path / "data"))
    body = {"model": "mock-ok", "messages": [{"role": "user", "content": "Hi"}], "store": True}
    answer = client.post("/v1/chat/completions", json=body).json
    assert answer is not None
    assert get(client, {}, f"/{answer['id']}")["choices"] == answer["choices"]


def add_response(client: FlaskClient, key: dict[str, str], id: str) -> None:
    items = [Entry(f"msg_{n}", f'{{"id":"msg_{n}"}}') for n in range(3)]
    storage = client.application.extensions["openai_compat"].storage
    new = NewObject(id, '{"id":"x"}', 1, {INPUT: items}, status="completed")
    storage.responses.create(owner_of(key["Authorization"]), new)


def test_a_response_is_read_listed_and_deleted(client: FlaskClient, key: dict[str, str]) -> None:
    id = new_id("resp_")
    add_response(client, key, id)
    url = f"/v1/responses/{id}"
    assert client.get(url, headers=key).json == {"id": "x"}
    events = client.get(f"{url}?stream=true&starting_after=3", headers=key)
    assert (events.status_code, events.json["error"]["param"]) == (404, "stream")  # type: ignore[index]
    page = client.get(f"{url}/input_items?limit=2", headers=key).json
    assert page is not None
    assert [item["id"] for item in page["data"]] == ["msg_2", "msg_1"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("msg_2", "msg_1", True)
    for other in ({"Authorization": "Bearer other"}, {}):
        answers = [
            client.get(url, headers=other),
            client.get(f"{url}/input_items", headers=other),
            client.delete(url, headers=other),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert client.delete(url, headers=key).json == {"id": id, "object": "response", "deleted": True}
    for missing in (id, "resp_unknown"):
        response = client.get(f"/v1/responses/{missing}", headers=key)
        assert response.status_code == 404
        assert response.json == {
            "error": {
                "message": f"Response with id '{missing}' not found.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer({"DATA_DIR": str(tmp_path_factory.mktemp("live"))}, workers=2) as live:
        yield live


def test_the_official_client_stores_and_lists(server: LiveServer) -> None:
    client = openai.OpenAI(base_url=server.base_url, api_key="mine")
    ids = []
    for number in range(3):
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": str(number)}],
            store=True,
            stream=number == 1,
            metadata={"n": str(number)},
        )
        ids.append([chunk.id for chunk in stream][-1] if isinstance(stream, openai.Stream) else stream.id)
    assert [completion.id for completion in client.chat.completions.list(limit=2)] == ids
    assert [completion.id for completion in client.chat.completions.list(metadata={"n": "1"})] == ids[1:2]
    stored = client.chat.completions.retrieve(ids[1])
    assert stored.choices[0].message.content == "1"
    assert [message.content for message in client.chat.completions.messages.list(ids[1])] == ["1"]
    assert client.chat.completions.update(ids[1], metadata={"n": "7"}).metadata == {"n": "7"}
    assert client.chat.completions.delete(ids[1]).deleted
    assert [completion.id for completion in client.chat.completions.list()] == [ids[0], ids[2]]
    other = openai.OpenAI(base_url=server.base_url, api_key="other")
    assert list(other.chat.completions.list()) == []
