"""Calls that name an alias of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream

QUESTION = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def client(make_client: MakeClient, upstream: MockUpstream, tmp_path: Path) -> FlaskClient:
    """Return a client of a server whose aliases name an upstream's model, an alias with targets, and an echo."""
    upstream.reset()
    models: list[dict[str, Any]] = [
        {"name": "plain", "kind": "openai", "base_url": upstream.base_url},
        {"name": "shared", "targets": ["echo"]},
        {"name": "echo", "kind": "echo"},
    ]
    aliases = {"claude-*": "plain", "claude-haiku-*": "echo", "claude-haiku-4-5": "shared", "gpt-4o": "echo"}
    (tmp_path / "models.json").write_text(json.dumps({"models": models, "model_aliases": aliases}))
    return make_client(MODELS_FILE=str(tmp_path / "models.json"), OPENAI_BASE_URL=upstream.base_url)


def ask(client: FlaskClient, model: str, path: str = "chat/completions", **body: Any) -> Any:
    answer = client.post(f"/v1/{path}", json={"model": model, "messages": QUESTION, **body})
    assert answer.status_code == 200, answer.get_json()
    return answer


def asked(upstream: MockUpstream) -> list[str]:
    """Return the models of the calls that the upstream received."""
    return [json.loads(request["body"])["model"] for request in upstream.requests() if request["body"]]


def test_the_upstream_gets_the_name_of_the_model(client: FlaskClient, upstream: MockUpstream) -> None:
    ask(client, "claude-sonnet-4-5")
    ask(client, "claude-sonnet-4-5", stream=True).get_data()
    assert asked(upstream) == ["plain", "plain"]


def test_an_exact_name_wins_over_patterns_and_the_longest_pattern_over_others(client: FlaskClient) -> None:
    assert ask(client, "claude-haiku-3").get_json()["choices"][0]["message"]["content"] == "Hello!"
    shared = ask(client, "claude-haiku-4-5")
    assert shared.headers["x-openai-compat-upstream"] == "echo"


def test_a_response_has_the_name_that_was_asked_for(client: FlaskClient) -> None:
    answer = client.post("/v1/responses", json={"model": "gpt-4o", "input": "Hello!"}).get_json()
    assert (answer["model"], answer["status"]) == ("gpt-4o", "completed")


def test_the_log_names_the_model(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="openai_compat.web.request_context"):
        ask(client, "claude-haiku-3")
    fields: Any = caplog.records[-1].__dict__["fields"]
    assert (fields["model"], fields["upstream"]) == ("claude-haiku-3", "echo")


def test_the_list_has_the_aliases_without_a_star(client: FlaskClient) -> None:
    names = [model["id"] for model in client.get("/v1/models").get_json()["data"]]
    assert names[:5] == ["plain", "shared", "echo", "claude-haiku-4-5", "gpt-4o"]
    assert client.get("/v1/models/claude-haiku-9").get_json()["id"] == "claude-haiku-9"


def test_other_endpoints_of_the_upstream_get_the_name_of_the_model(client: FlaskClient, upstream: MockUpstream) -> None:
    client.post("/v1/moderations", json={"model": "claude-opus-4", "input": "Hello!"})
    assert asked(upstream) == ["plain"]


def test_an_alias_of_a_model_of_the_default_upstream(make_client: MakeClient, upstream: MockUpstream) -> None:
    upstream.reset()
    client = make_client(OPENAI_BASE_URL=upstream.base_url, MODEL_ALIASES="mock-*=mock-model, big=mock-model")
    ask(client, "mock-anything")
    ask(client, "big")
    assert asked(upstream) == ["mock-model", "mock-model"]
    assert client.get("/v1/models/mock-anything").get_json()["id"] == "mock-anything"
