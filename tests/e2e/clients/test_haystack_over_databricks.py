"""Pipelines on top of Databricks endpoints, with their credentials, adaptations and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.support.fake_databricks import PERSONAL_TOKEN, USER_TOKEN, Workspace
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.extra("haystack")

ADAPTED = "x-openai-compat-adapted"
SIGNED_IN = {"X-Forwarded-Access-Token": USER_TOKEN}
QUESTION: Any = [{"role": "user", "content": "Why do cats purr?"}]


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as workspace:
        yield workspace


@pytest.fixture(scope="module")
def server(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("over-databricks")
    (folder / "pets").mkdir()
    (folder / "pets" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    endpoints: dict[str, dict[str, Any]] = {
        "endpoint": {"upstream_model": "echo"},
        "user": {"upstream_model": "echo", "credentials": "user"},
        "strict": {"upstream_model": "echo", "profile": {"extends": "databricks", "strict": True}},
        "busy": {"upstream_model": "limited"},
    }
    models: list[dict[str, Any]] = []
    for name, endpoint in endpoints.items():
        models.append({"name": name, "kind": "databricks", "credentials": "token", **endpoint})
        models.append({"name": f"pets-{name}", "kind": "haystack", "documents": "pets", "generator": name})
    own = {"name": "pets-own", "kind": "haystack", "documents": "pets", "generator": "endpoint"}
    models.append({**own, "profile": {"drop": ["metadata"]}})
    (folder / "models.json").write_text(json.dumps(models))
    settings = {"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": PERSONAL_TOKEN}
    with LiveServer({"MODELS_FILE": "models.json", **settings}, folder=folder) as server:
        yield server


def ask(server: LiveServer, model: str, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
    body = {"model": model, "messages": QUESTION, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
def test_the_endpoints_adaptations_are_reported_to_the_client(
    server: LiveServer, workspace: Workspace, stream: bool
) -> None:
    reply = ask(server, "pets-endpoint", user="zoe", seed=7, temperature=0.5, stream=stream)
    assert reply.status_code == 200
    assert set(reply.headers[ADAPTED].split(", ")) == {"user=dropped", "seed=dropped"}
    assert workspace.bodies[-1]["temperature"] == 0.5
    assert workspace.bodies[-1].keys().isdisjoint({"user", "seed", "stream_options"})
    assert "cats.md" in reply.text


def test_no_adaptations_are_reported_if_nothing_was_adapted(server: LiveServer) -> None:
    for stream in (False, True):
        assert ADAPTED not in ask(server, "pets-endpoint", temperature=0.5, stream=stream).headers


def test_the_adaptations_of_both_profiles_are_reported(server: LiveServer) -> None:
    adapted = ask(server, "pets-own", user="zoe", metadata={"a": "b"}).headers[ADAPTED]
    assert set(adapted.split(", ")) == {"metadata=dropped", "user=dropped"}


def test_usage_is_counted_for_an_endpoint_that_reports_none(server: LiveServer) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="pets-endpoint", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_signed_in_users_token_reaches_the_endpoint(server: LiveServer, workspace: Workspace, stream: bool) -> None:
    assert ask(server, "pets-user", SIGNED_IN, stream=stream).status_code == 200
    assert workspace.authorizations[-1] == f"Bearer {USER_TOKEN}"
    count = len(workspace.bodies)
    assert ask(server, "pets-user", stream=stream).status_code == 401
    assert len(workspace.bodies) == count
    assert ask(server, "pets-endpoint", SIGNED_IN, stream=stream).status_code == 200
    assert workspace.authorizations[-1] == f"Bearer {PERSONAL_TOKEN}"


@pytest.mark.parametrize("stream", [False, True])
def test_the_endpoints_errors_reach_the_client(server: LiveServer, stream: bool) -> None:
    refused = ask(server, "pets-strict", user="zoe", stream=stream)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "user")
    limited = ask(server, "pets-busy", stream=stream)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert limited.json()["error"]["code"] == "REQUEST_LIMIT_EXCEEDED"
