"""The model that `doctor` asks: it is there for who knows it, and for nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment


def client_of(environ: dict[str, str]) -> FlaskClient:
    return create_app(environment.load(environ)).test_client()


def order(client: FlaskClient, content: Any, *, stream: bool = False) -> Any:
    body = {"model": "openai-compat-doctor", "stream": stream, "messages": [{"role": "user", "content": content}]}
    return client.post("/v1/chat/completions", json=body)


def test_it_says_when_it_speaks() -> None:
    answer = order(client_of({}), json.dumps({"pauses": [0, 0.01]}))
    words = [json.loads(line) for line in answer.json["choices"][0]["message"]["content"].splitlines()]
    assert [sorted(word) for word in words] == [["at"], ["at"]]
    assert words[1]["at"] - words[0]["at"] >= 0.009


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
def test_what_is_no_order_is_a_400(content: str) -> None:
    answer = order(client_of({}), content)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "messages")


def test_a_call_that_nobody_left_is_not_known() -> None:
    answer = order(client_of({}), '{"about": "never"}')
    assert json.loads(answer.json["choices"][0]["message"]["content"]) == {"left_at": None}


def test_no_list_shows_it_and_a_setting_takes_it_away() -> None:
    client = client_of({})
    assert [model["id"] for model in client.get("/v1/models").json["data"]] == ["mock-gpt-model"]
    answer = order(client_of({"DIAGNOSTICS_ENABLED": "false"}), '{"pauses": []}')
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "model_not_found")


def test_it_needs_a_key_where_others_do() -> None:
    assert order(client_of({"API_KEYS": "sk-mine"}), '{"pauses": []}').status_code == 401
