"""A Databricks workspace behind a live server, with its credentials, parameters and errors."""

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
from tests.support.waiting import wait_until

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
    """Yield a server with two workers, a service principal, the endpoints of the setting and a models file."""
    file = tmp_path_factory.mktemp("models") / "models.json"
    entries = [
        {"name": "strict", "profile": {"extends": "databricks", "strict": True}},
        {"name": "plain", "profile": {}, "upstream_model": "echo"},
        {"name": "with-token", "credentials": "token", "upstream_model": "forbidden"},
        {"name": "of-the-user", "credentials": "user", "upstream_model": "forbidden"},
        {"name": "of-the-user-echo", "credentials": "user", "upstream_model": "echo"},
    ]
    spare = {"name": "spare", "kind": "echo"}
    routed = {"name": "routed", "targets": {"reasoning": 1}, "fallbacks": ["spare"]}
    file.write_text(json.dumps([*({"kind": "databricks", **entry} for entry in entries), spare, routed]))
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


def test_the_official_client_streams_and_gets_the_requested_usage(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}, max_completion_tokens=50
    ) as reply:
        chunks = list(reply.parse())
        adapted = set(reply.headers[ADAPTED].split(", "))
    assert adapted == {"stream_options=emulated", "max_completion_tokens=max_tokens"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == HELLO[0]["content"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert {chunk.model for chunk in chunks} == {"echo"}


def test_the_header_is_absent_if_nothing_was_adapted(server: LiveServer) -> None:
    for stream in (False, True):
        assert ADAPTED not in ask(server, stream=stream, max_tokens=5).headers


def test_the_workspace_gets_only_parameters_that_it_supports(server: LiveServer, workspace: Workspace) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "zoe"}]
    reply = ask(server, messages=messages, user="u", seed=None, max_completion_tokens=9)
    assert reply.status_code == 200
    assert workspace.bodies[-1] == {
        "model": "echo",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "stream": False,
    }
    adapted = "messages.role=system, messages.name=dropped, user=dropped, max_completion_tokens=max_tokens"
    assert reply.headers[ADAPTED] == adapted


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"user": "u"}, "user"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages.role"),
    ],
)
def test_a_strict_profile_rejects_unsupported_parameters(
    server: LiveServer, workspace: Workspace, more: Any, param: str
) -> None:
    before = len(workspace.bodies)
    reply = ask(server, "strict", **more)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, "unsupported_parameter")
    assert len(workspace.bodies) == before


def test_without_a_profile_the_error_of_the_workspace_is_returned(server: LiveServer) -> None:
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
def test_a_rate_limit_is_forwarded(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="limited", messages=HELLO, stream=stream)
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.body["message"] == "Exceeded workspace rate limit."  # type: ignore[index]
    assert limited.value.code == "REQUEST_LIMIT_EXCEEDED"


@pytest.mark.parametrize("model", ["forbidden", "with-token"])
def test_a_403_for_the_servers_credential_is_a_502(server: LiveServer, model: str) -> None:
    reply = ask(server, model)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert reply.json()["error"]["code"] == "upstream_authentication_failed"


def test_the_token_of_the_signed_in_user_is_forwarded_with_its_errors(server: LiveServer, workspace: Workspace) -> None:
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
def test_a_route_translates_answers_and_names_the_upstream(server: LiveServer, stream: bool) -> None:
    reply = ask(server, "routed", stream=stream, user="u")
    assert reply.headers["x-openai-compat-upstream"] == "reasoning"
    assert reply.headers[ADAPTED] == "user=dropped"
    assert '"reasoning_content":"Hm. ' in reply.text
    assert '"type":"reasoning"' not in reply.text.replace(" ", "")


class TestExpiredToken:
    @pytest.fixture
    def workspace(self) -> Iterator[Workspace]:
        with Workspace(token_seconds=2) as workspace:
            yield workspace

    @pytest.fixture
    def server(self, workspace: Workspace) -> Iterator[LiveServer]:
        with LiveServer(workspace.settings("echo", "slow")) as server:
            yield server

    def test_a_stream_outlives_its_token_and_the_next_call_gets_a_new_one(
        self, server: LiveServer, workspace: Workspace
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(ask, server, "slow", stream=True)
            wait_until(lambda: workspace.bodies, "the stream has started")
            wait_until(lambda: not workspace.accepts("Bearer oauth-token-1"), "the token has expired")
            workspace.may_continue.set()
            assert reply.result().text.endswith("data: [DONE]\n\n")
        assert ask(server).status_code == 200
        assert workspace.authorizations == ["Bearer oauth-token-1", f"Bearer oauth-token-{workspace.tokens_issued}"]
        assert workspace.tokens_issued > 1


class TestRejectedToken:
    def test_a_rejected_token_is_replaced_without_an_error(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            assert ask(server).status_code == 200
            workspace.revoke_tokens()
            assert [ask(server, stream=stream).status_code for stream in (True, False)] == [200, 200]
            assert workspace.tokens_issued == 2

    def test_concurrent_calls_replace_a_rejected_token_once(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            assert ask(server).status_code == 200
            workspace.revoke_tokens()
            with ThreadPoolExecutor(20) as pool:
                replies = list(pool.map(lambda _: ask(server), range(40)))
            assert [reply.status_code for reply in replies if reply.status_code != 200] == []
            assert workspace.tokens_issued == 2

    def test_a_failed_token_request_is_reported_without_the_secret(self) -> None:
        with Workspace() as workspace, LiveServer(workspace.settings("echo")) as server:
            workspace.issues_tokens = False
            reply = ask(server)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_authentication_failed")
            assert "invalid_client" in server.log()
            assert workspace.client_secret not in server.log() + reply.text

    def test_an_unreachable_workspace(self) -> None:
        with Workspace() as workspace:
            settings = workspace.settings("echo")
        with LiveServer(settings) as server:
            reply = ask(server)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_unreachable")
            assert "127.0.0.1" not in reply.text
