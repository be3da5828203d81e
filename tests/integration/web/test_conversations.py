"""Conversations, their items and their owners, by HTTP and with the official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from tests.integration.web.conftest import MakeClient
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

HELLO = {"role": "user", "content": "Hello!"}
OTHER_KEY = {"Authorization": "Bearer other"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """Return a client with a key, of a server that takes any key."""
    environ = {"DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    client = create_app(environment.load(environ)).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer mine"
    return client


def create(client: FlaskClient, *items: Any, root: str = "/v1") -> str:
    response = client.post(f"{root}/conversations", json={"items": list(items), "metadata": {"topic": "tests"}})
    assert response.status_code == 200, response.json
    assert response.json is not None
    return str(response.json["id"])


def list_of(client: FlaskClient, id: str, query: str = "?order=asc") -> list[Any]:
    response = client.get(f"/v1/conversations/{id}/items{query}")
    assert response.status_code == 200, response.json
    assert response.json is not None
    return list(response.json["data"])


def test_a_conversation_is_created_read_changed_and_deleted(client: FlaskClient) -> None:
    id = create(client, HELLO)
    url = f"/v1/conversations/{id}"
    created = client.get(url).json
    assert created is not None
    assert created == {
        "id": id,
        "object": "conversation",
        "created_at": created["created_at"],
        "metadata": {"topic": "tests"},
    }
    changed = client.post(url, json={"metadata": {"topic": "ü"}}).json
    assert changed == {**created, "metadata": {"topic": "ü"}} == client.get(url).json
    assert client.delete(url).json == {"id": id, "object": "conversation.deleted", "deleted": True}
    gone = client.get(url)
    assert gone.status_code == 404
    assert gone.json == {
        "error": {
            "message": f"Conversation with id '{id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
    assert client.get(f"{url}/items").status_code == 404


@pytest.mark.parametrize("root", ["", "/api/v1", "/openai/v1", "/openai"])
def test_every_root_has_conversations(client: FlaskClient, root: str) -> None:
    id = create(client, root=root)
    assert client.get(f"{root}/conversations/{id}").status_code == 200


def test_a_conversation_needs_no_body(client: FlaskClient) -> None:
    assert client.post("/v1/conversations").json["metadata"] == {}  # type: ignore[index]
    assert client.post("/v1/conversations", json={}).status_code == 200


def test_items_are_complete(client: FlaskClient) -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
    answer = {"role": "assistant", "content": "Hi."}
    parts = {"type": "message", "id": "msg_own", "role": "user", "content": [{"type": "input_text", "text": "?"}]}
    strange = {"type": "from_the_future", "id": "x-1", "value": None}
    items = list_of(client, create(client, HELLO, answer, call, output, parts, strange))
    ids = [item.pop("id") for item in items]
    assert [id.split("_")[0] for id in ids[:4]] == ["msg", "msg", "fc", "fco"]
    assert ids[4:] == ["msg_own", "x-1"]
    text = {"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}
    assert items == [
        {
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hello!"}],
        },
        {"type": "message", "status": "completed", "role": "assistant", "content": [text]},
        {**call, "status": "completed"},
        {**output, "status": "completed"},
        {"type": "message", "status": "completed", "role": "user", "content": parts["content"]},
        {"type": "from_the_future", "value": None},
    ]


def test_items_of_custom_tools_have_a_status(client: FlaskClient) -> None:
    call = {"type": "custom_tool_call", "call_id": "call_1", "name": "run", "input": "ls"}
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "a.txt", "status": "incomplete"}
    items = list_of(client, create(client, call, output))
    assert [item["status"] for item in items] == ["completed", "incomplete"]


def test_items_are_added_listed_and_deleted(client: FlaskClient) -> None:
    id = create(client)
    url = f"/v1/conversations/{id}/items"
    items = [{**HELLO, "id": f"msg_{number}"} for number in range(25)]
    added = client.post(url, json={"items": items[:20]}).json
    assert added is not None
    assert (added["object"], added["first_id"], added["last_id"], added["has_more"]) == (
        "list",
        "msg_0",
        "msg_19",
        False,
    )
    client.post(url, json={"items": items[20:]})
    newest = client.get(url).json
    assert newest is not None
    assert [item["id"] for item in newest["data"]] == [f"msg_{number}" for number in range(24, 4, -1)]
    assert (newest["first_id"], newest["last_id"], newest["has_more"]) == ("msg_24", "msg_5", True)
    rest = client.get(f"{url}?after=msg_5&limit=100").json
    assert rest is not None
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([f"msg_{n}" for n in range(4, -1, -1)], False)
    assert client.get(f"{url}/msg_7").json["id"] == "msg_7"  # type: ignore[index]
    assert client.delete(f"{url}/msg_7").json == client.get(f"/v1/conversations/{id}").json
    missing = client.get(f"{url}/msg_7")
    assert missing.status_code == 404
    assert "msg_7" in missing.json["error"]["message"]  # type: ignore[index]
    assert client.delete(f"{url}/msg_7").status_code == 404
    assert list_of(client, create(client)) == []


def test_a_reference_copies_an_item_of_the_same_owner(client: FlaskClient) -> None:
    source = list_of(client, create(client, HELLO))[0]
    for reference in ({"type": "item_reference", "id": source["id"]}, {"id": source["id"]}):
        assert list_of(client, create(client, reference)) == [source]
        stolen = client.post("/v1/conversations", json={"items": [reference]}, headers=OTHER_KEY)
        assert (stolen.status_code, stolen.json["error"]["param"]) == (404, "items")  # type: ignore[index]


def test_another_key_sees_nothing(client: FlaskClient) -> None:
    id = create(client, {**HELLO, "id": "msg_secret"})
    url = f"/v1/conversations/{id}"
    for headers in (OTHER_KEY, {"Authorization": ""}):
        answers = [
            client.get(url, headers=headers),
            client.post(url, json={"metadata": {}}, headers=headers),
            client.delete(url, headers=headers),
            client.get(f"{url}/items", headers=headers),
            client.post(f"{url}/items", json={"items": [HELLO]}, headers=headers),
            client.get(f"{url}/items/msg_secret", headers=headers),
            client.delete(f"{url}/items/msg_secret", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [404] * 7
    for headers in ({"api-key": "mine", "Authorization": ""}, {"x-api-key": "mine", "Authorization": ""}):
        assert client.get(url, headers=headers).status_code == 200, "the same key in another header"
    assert len(list_of(client, id)) == 1


def test_a_caller_lists_its_own_conversations(client: FlaskClient) -> None:
    key, other = {"Authorization": "Bearer lists"}, {"Authorization": "Bearer lists-too"}
    made = [
        client.post("/v1/conversations", json={"metadata": {"title": f"Talk {number}"}}, headers=key).json
        for number in range(3)
    ]
    client.post("/v1/conversations", json={"metadata": {"title": "Of another"}}, headers=other)

    def page(query: str = "", headers: dict[str, str] = key) -> Any:
        response = client.get(f"/v1/conversations{query}", headers=headers)
        assert response.status_code == 200, response.json
        return response.json

    newest_first = list(reversed(made))
    first, last = newest_first[0]["id"], newest_first[-1]["id"]  # type: ignore[index]
    assert page() == {
        "object": "list", "data": newest_first, "first_id": first, "last_id": last, "has_more": False,
    }  # fmt: skip
    half = page("?limit=2")
    assert (half["data"], half["has_more"]) == (newest_first[:2], True)
    rest = page(f"?limit=2&after={half['last_id']}")
    assert (rest["data"], rest["has_more"]) == (newest_first[2:], False)
    assert page("?order=asc")["data"] == made
    assert [found["metadata"] for found in page(headers=other)["data"]] == [{"title": "Of another"}]
    assert page(headers={"api-key": "lists", "Authorization": ""})["data"] == newest_first
    client.delete(f"/v1/conversations/{first}", headers=key)
    assert page()["data"] == newest_first[1:]
    stolen = client.get(f"/v1/conversations?after={last}", headers=other)
    assert (stolen.status_code, stolen.json["error"]["param"]) == (400, "after")  # type: ignore[index]


@pytest.mark.parametrize("credential", ["", "Bearer ", "Bearer", "Basic dXNlcjpwYXNz"])
def test_conversations_of_callers_without_a_key_are_not_listed(client: FlaskClient, credential: str) -> None:
    """They share an owner, and those behind a proxy may share its password."""
    headers = {"Authorization": credential}
    assert client.post("/v1/conversations", json={}, headers=headers).status_code == 200
    for root in ("/v1", "", "/openai"):
        response = client.get(f"{root}/conversations", headers=headers)
        assert response.status_code == 401
        assert "Conversations are listed for a key only" in response.json["error"]["message"]  # type: ignore[index]


MISTAKES: list[tuple[str, Any, str | None, str | None]] = [
    ("", {"items": [HELLO] * 21}, "items", "array_above_max_length"),
    ("", {"items": {}}, "items", "invalid_type"),
    ("", {"items": [{"role": "user"}]}, "items[0].content", "missing_required_parameter"),
    ("", {"items": [{}]}, "items[0].role", "missing_required_parameter"),
    ("", {"items": [{"type": "item_reference"}]}, "items[0].id", "missing_required_parameter"),
    ("", {"items": [{**HELLO, "id": "a"}, {**HELLO, "id": "a"}]}, "items", "duplicate_item"),
    ("", {"items": [{**HELLO, "id": "a\u0000"}]}, "items[0].id", "invalid_value"),
    ("", {"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ("", {"metadata": {"k" * 65: "v"}}, "metadata", "string_above_max_length"),
    ("", {"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
    ("", {"metadata": {str(n): "v" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ("/{id}", {}, "metadata", "missing_required_parameter"),
    ("/{id}/items", {}, "items", "missing_required_parameter"),
    ("/{id}/items", {"items": [{**HELLO, "id": "msg_there"}]}, "items", "duplicate_item"),
    ("?limit=0", None, "limit", "integer_below_min_value"),
    ("?after=conv_unknown", None, "after", "invalid_value"),
    ("/{id}/items?limit=0", None, "limit", "integer_below_min_value"),
    ("/{id}/items?limit=101", None, "limit", "integer_above_max_value"),
    ("/{id}/items?limit=ten", None, "limit", "invalid_type"),
    ("/{id}/items?order=up", None, "order", "invalid_value"),
    ("/{id}/items?after=msg_unknown", None, "after", "invalid_value"),
]


@pytest.mark.parametrize(("path", "body", "param", "code"), MISTAKES)
def test_mistakes_are_named(client: FlaskClient, path: str, body: Any, param: str | None, code: str | None) -> None:
    id = create(client, {**HELLO, "id": "msg_there"})
    url = "/v1/conversations" + path.format(id=id)
    response = client.get(url) if body is None else client.post(url, json=body)
    assert response.status_code == 400, response.json
    assert response.json is not None
    error = response.json["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert len(list_of(client, id)) == 1


def test_conversations_of_an_upstream_stay_there(
    make_client: MakeClient, upstream: MockUpstream, tmp_path: Path
) -> None:
    """The default upstream's responses can use only its own conversations."""
    environ = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": upstream.base_url, "DATA_DIR": str(tmp_path / "data")}
    client = make_client(**environ)
    paths = ["conversations/conv_abc", "conversations/conv_abc/items", f"responses/resp_{'0' * 48}/input_items"]
    for path in paths:
        client.get(f"/v1/{path}")
        assert upstream.requests()[-1]["path"] == f"/v1/{path}"
    client.post("/v1/conversations", json={"items": [HELLO]})
    assert upstream.requests()[-1]["path"] == "/v1/conversations"
    assert "Hello!" in str(upstream.requests()[-1])
    count = len(upstream.requests())
    refused = client.get("/v1/conversations", headers={"Authorization": "Bearer mine"})
    assert (refused.status_code, refused.json["error"]["code"]) == (501, "list_not_available")  # type: ignore[index]
    assert len(upstream.requests()) == count, "the upstream's list would be that of this server's key"
    assert not (tmp_path / "data").exists()
    here = make_client(**environ, PASSTHROUGH="files")
    id = create(here, HELLO)
    upstream.reset()
    assert here.get(f"/v1/conversations/{id}").status_code == 200
    assert here.get("/v1/conversations/conv_abc").status_code == 404
    assert upstream.requests() == []


def test_a_database_that_is_away_fails_only_what_needs_it(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = make_client(DATABASE_URL=f"sqlite:{tmp_path}/file/named.db")
    chat = {"messages": [HELLO]}
    for response in (
        client.post("/v1/conversations", json={}),
        client.get(f"/v1/conversations/conv_{'0' * 32}"),
        client.get("/v1/conversations", headers={"Authorization": "Bearer mine"}),
        client.post("/v1/chat/completions", json={**chat, "store": True}),
        client.post("/v1/chat/completions", json={**chat, "store": True, "stream": True}),
    ):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json["error"]["code"] == "storage_unavailable"  # type: ignore[index]
        assert str(tmp_path) not in response.text
    assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert client.post("/v1/chat/completions", json={**chat, "store": False}).status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer({"DATA_DIR": str(tmp_path_factory.mktemp("live"))}, workers=2) as live:
        yield live


def test_the_official_client_pages_through_items(server: LiveServer) -> None:
    client = openai.OpenAI(base_url=server.base_url, api_key="mine")
    conversation = client.conversations.create(metadata={"a": "b"}, items=[HELLO])  # type: ignore[list-item]
    for number in range(4):
        client.conversations.items.create(
            conversation.id, items=[{"role": "user", "content": f"{number}-{part}"} for part in range(3)]
        )
    listed = list(client.conversations.items.list(conversation.id, limit=4, order="asc"))
    texts = [item.content[0].text for item in listed if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["Hello!", *(f"{number}-{part}" for number in range(4) for part in range(3))]
    assert client.conversations.items.retrieve(str(listed[3].id), conversation_id=conversation.id) == listed[3]
    after = client.conversations.items.delete(str(listed[3].id), conversation_id=conversation.id)
    assert after == client.conversations.retrieve(conversation.id)
    assert client.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
