"""A Databricks workspace behind a live gunicorn: its credentials, its peculiarities, its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests

from tests.support.fake_databricks import PERSONAL_TOKEN, USER_TOKEN, Workspace
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.extra("databricks")

ADAPTED = "x-openai-compat-adapted"
HELLO: Any = [{"role": "user", "content": "Hello there, how are you?"}]
ENDPOINTS = ("echo", "slow", "limited", "forbidden", "reasoning")


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as workspace:
        yield workspace


@pytest.fixture(scope="module")
def server(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two workers with a service principal; beside the endpoints of the setting some rows of a models file."""
    file = tmp_path_factory.mktemp("models") / "models.json"
    rows = [
        {"name": "strict", "profile": {"extends": "databricks", "strict": True}},
        {"name": "plain", "profile": {}, "upstream_model": "echo"},
        {"name": "with-token", "credentials": "token", "upstream_model": "forbidden"},
        {"name": "of-the-user", "credentials": "user", "upstream_model": "forbidden"},
        {"name": "of-the-user-echo", "credentials": "user", "upstream_model": "echo"},
    ]
    spare = {"name": "spare", "kind": "echo"}
    routed = {"name": "routed", "targets": {"reasoning": 1}, "fallbacks": ["spare"]}
    file.write_text(json.dumps([*({"kind": "databricks", **row} for row in rows), spare, routed]))
    settings = {
        **workspace.settings(*ENDPOINTS),
        "DATABRICKS_CREDENTIALS": "service-principal",
        "DATABRICKS_TOKEN": PERSONAL_TOKEN,
        "MODELS_FILE": str(file),
    }
    with LiveServer(settings, workers=2) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def ask(server: LiveServer, model: str = "echo", headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"model": model, "messages": HELLO, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=30)


def test_each_worker_fetches_one_token_for_all_models(server: LiveServer, workspace: Workspace) -> None:
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda number: ask(server, ("echo", "reasoning", "strict")[number % 3]), range(30)))
    assert {reply.status_code for reply in replies} == {200}
    assert 1 <= workspace.tokens_issued <= 2
    assert set(workspace.authorizations) <= {"Bearer oauth-token-1", "Bearer oauth-token-2"}


def test_the_official_client_streams_and_gets_the_usage_it_asks_for(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}, max_completion_tokens=50
    ) as reply:
        chunks = list(reply.parse())
        told = set(reply.headers[ADAPTED].split(", "))
    assert told == {"stream_options=emulated", "max_completion_tokens=max_tokens"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == HELLO[0]["content"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert {chunk.model for chunk in chunks} == {"echo"}


def test_nothing_is_said_where_nothing_was_adapted(server: LiveServer) -> None:
    for stream in (False, True):
        assert ADAPTED not in ask(server, stream=stream, max_tokens=5).headers


def test_the_workspace_gets_what_it_knows(server: LiveServer, workspace: Workspace) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "zoe"}]
    reply = ask(server, messages=messages, user="u", seed=None, max_completion_tokens=9)
    assert reply.status_code == 200
    assert workspace.bodies[-1] == {
        "model": "echo",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "stream": False,
    }
    told = "messages.role=system, messages.name=dropped, user=dropped, max_completion_tokens=max_tokens"
    assert reply.headers[ADAPTED] == told


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"user": "u"}, "user"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages.role"),
    ],
)
def test_a_strict_row_refuses_instead(server: LiveServer, workspace: Workspace, more: Any, param: str) -> None:
    asked = len(workspace.bodies)
    reply = ask(server, "strict", **more)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, "unsupported_parameter")
    assert len(workspace.bodies) == asked


def test_without_its_profile_the_workspace_speaks_for_itself(server: LiveServer) -> None:
    reply = ask(server, "plain", user="u")
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": 'Bad request: json: unknown field "user"',
        "type": "invalid_request_error",
        "param": None,
        "code": "BAD_REQUEST",
    }


def test_reasoning_in_parts_becomes_text(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model="reasoning", messages=HELLO).choices[0].message
    assert (message.content, getattr(message, "reasoning_content", None)) == (HELLO[0]["content"], "Hm. ")
    chunks = client.chat.completions.create(model="reasoning", messages=HELLO, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO[0]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_is_passed_on(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="limited", messages=HELLO, stream=stream)
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.body["message"] == "Exceeded workspace rate limit."  # type: ignore[index]
    assert limited.value.code == "REQUEST_LIMIT_EXCEEDED"


@pytest.mark.parametrize("model", ["forbidden", "with-token"])
def test_a_403_of_our_credential_is_a_502(server: LiveServer, model: str) -> None:
    reply = ask(server, model)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert reply.json()["error"]["code"] == "upstream_authentication_failed"


def test_the_signed_in_users_token_is_used_and_judged(server: LiveServer, workspace: Workspace) -> None:
    signed_in = {"X-Forwarded-Access-Token": USER_TOKEN}
    assert ask(server, "of-the-user-echo", signed_in).status_code == 200
    assert workspace.authorizations[-1] == f"Bearer {USER_TOKEN}"
    reply = ask(server, "of-the-user", signed_in)
    assert reply.status_code == 403
    assert reply.json()["error"]["message"] == "You do not have permission to query this endpoint."
    assert ask(server, "of-the-user-echo").status_code == 401
    assert ask(server, "echo", signed_in).status_code == 200
    assert workspace.authorizations[-1].startswith("Bearer oauth-token")


def test_embeddings_and_completions_are_forwarded(client: openai.OpenAI, workspace: Workspace) -> None:
    assert client.embeddings.create(model="echo", input="x", encoding_format="float", user="u").data[0].embedding
    assert workspace.bodies[-1].keys() == {"model", "input", "encoding_format"}
    reply = client.completions.with_raw_response.create(model="echo", prompt="Once", user="u")
    assert reply.headers[ADAPTED] == "user=dropped"
    assert workspace.bodies[-1] == {"model": "echo", "prompt": "Once"}
    assert reply.parse().choices[0].text == "Once"


@pytest.mark.parametrize("stream", [False, True])
def test_a_route_rebuilds_answers_and_tells_of_the_one_that_answered(server: LiveServer, stream: bool) -> None:
    reply = ask(server, "routed", stream=stream, user="u")
    assert reply.headers["x-openai-compat-upstream"] == "reasoning"
    assert reply.headers[ADAPTED] == "user=dropped"
    assert '"reasoning_content":"Hm. ' in reply.text
    assert '"type":"reasoning"' not in reply.text.replace(" ", "")


class TestATokenThatEnds:
    @pytest.fixture
    def workspace(self) -> Iterator[Workspace]:
        with Workspace(token_seconds=2, pause=0.35) as workspace:
            yield workspace

    @pytest.fixture
    def server(self, workspace: Workspace) -> Iterator[LiveServer]:
        with LiveServer(workspace.settings("echo", "slow")) as server:
            yield server

    def test_a_stream_outlives_its_token_and_the_next_call_has_another(
        self, server: LiveServer, workspace: Workspace
    ) -> None:
        reply = ask(server, "slow", stream=True)
        assert reply.text.endswith("data: [DONE]\n\n")
        assert not workspace.accepts("Bearer oauth-token-1")
        assert ask(server).status_code == 200
        assert workspace.authorizations == ["Bearer oauth-token-1", f"Bearer oauth-token-{workspace.tokens_issued}"]
        assert workspace.tokens_issued > 1


class TestATokenThatIsRefused:
    def test_it_is_replaced_unseen(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            assert ask(server).status_code == 200
            workspace.revoke_tokens()
            assert [ask(server, stream=stream).status_code for stream in (True, False)] == [200, 200]
            assert workspace.tokens_issued == 2

    def test_many_calls_replace_it_once(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            assert ask(server).status_code == 200
            workspace.revoke_tokens()
            with ThreadPoolExecutor(20) as pool:
                replies = list(pool.map(lambda _: ask(server), range(40)))
            assert [reply.status_code for reply in replies if reply.status_code != 200] == []
            assert workspace.tokens_issued == 2

    def test_a_workspace_that_gives_none_is_told_without_its_secret(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            workspace.issues_tokens = False
            reply = ask(server)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_authentication_failed")
            assert "invalid_client" in server.log()
            assert workspace.client_secret not in server.log() + reply.text

    def test_a_workspace_that_is_not_there(self) -> None:
        with Workspace() as workspace:
            settings = workspace.settings("echo")
        with LiveServer(settings) as server:
            reply = ask(server)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_unreachable")
            assert "127.0.0.1" not in reply.text
