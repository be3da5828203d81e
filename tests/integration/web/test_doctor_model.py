"""The diagnostic model of `doctor` obeys commands, is in no list, and needs a key as other models do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment

ENABLED = {"DIAGNOSTICS_ENABLED": "true"}


def client_of(environ: dict[str, str]) -> FlaskClient:
    return create_app(environment.load(environ)).test_client()


def send_command(client: FlaskClient, content: Any, *, stream: bool = False) -> Any:
    body = {"model": "openai-compat-doctor", "stream": stream, "messages": [{"role": "user", "content": content}]}
    return client.post("/v1/chat/completions", json=body)


def test_events_contain_when_they_were_sent() -> None:
    response = send_command(client_of(ENABLED), json.dumps({"pauses": [0, 0.01]}))
    events = [json.loads(line) for line in response.json["choices"][0]["message"]["content"].splitlines()]
    assert [sorted(event) for event in events] == [["at"], ["at"]]
    assert events[1]["at"] - events[0]["at"] >= 0.009


@pytest.mark.parametrize(
    "content",
    [
        "hello",
        "[]",
        '{"pauses": 3}',
        '{"pauses": ["x"]}',
        '{"pauses": [-1]}',
        '{"pauses": [4000]}',
        '{"pauses": [NaN]}',
    ],
)
def test_an_invalid_command_returns_400(content: str) -> None:
    response = send_command(client_of(ENABLED), content)
    assert (response.status_code, response.json["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("query", ["query", "about"])
def test_a_query_for_an_unknown_call_returns_null_to_every_version_of_the_command_line(query: str) -> None:
    response = send_command(client_of(ENABLED), json.dumps({query: "unknown"}))
    answer = json.loads(response.json["choices"][0]["message"]["content"])
    assert answer == {"disconnected_at": None, "left_at": None}


def test_the_model_is_not_listed_and_off_by_default() -> None:
    client = client_of(ENABLED)
    assert [model["id"] for model in client.get("/v1/models").json["data"]] == ["mock-gpt-model"]
    response = send_command(client_of({}), '{"pauses": []}')
    assert (response.status_code, response.json["error"]["code"]) == (404, "model_not_found")


def test_the_model_requires_a_key_where_other_models_do() -> None:
    assert send_command(client_of({**ENABLED, "API_KEYS": "sk-mine"}), '{"pauses": []}').status_code == 401
