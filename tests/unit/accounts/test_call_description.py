"""What the accounts read of a call before it is made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from openai_compat.accounts.service import end_user_of, most_output_tokens
from openai_compat.backends.base import Backend, SupportsMessages
from openai_compat.backends.echo.backend import EchoBackend
from openai_compat.core.settings import ModelConfig
from openai_compat.routing.router import Route


@dataclass
class Call:
    path: str
    payload: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    choices: int = 1
    prompts: int = 1


class Native(EchoBackend, SupportsMessages):
    """A backend to which calls pass unchanged."""

    upstream_model = None

    def forward_messages(self, call: Any, context: Any) -> Any:
        raise NotImplementedError

    def to_refusal(self, status: int | None) -> None:
        raise NotImplementedError


def route(limit: int | None, kind: type[Backend] = EchoBackend) -> Route:
    backend = object.__new__(kind)
    backend.entry = ModelConfig("m", "echo", max_output_tokens=limit)
    return Route("m", backend)


CLAUDE_CODE = {"device_id": "device", "account_uuid": "account", "session_id": "1"}


@pytest.mark.parametrize(
    ("user_id", "end_user"),
    [
        ("ann", "ann"),
        (json.dumps(CLAUDE_CODE), "account"),
        (json.dumps({**CLAUDE_CODE, "account_uuid": ""}), "device"),
        (json.dumps({"name": "ann"}), '{"name": "ann"}'),
        ("user_0a_account__session_3f-2", "user_0a_account_"),
        ("{", "{"),
        ("", None),
        (1, None),
    ],
)
def test_the_end_user_of_a_message_is_the_same_in_all_sessions(user_id: object, end_user: str | None) -> None:
    assert end_user_of("messages", {"metadata": {"user_id": user_id}, "user": "other"}) == end_user
    assert end_user_of("messages/count_tokens", {"metadata": {"user_id": user_id}}) == end_user


def test_the_end_user_of_other_calls() -> None:
    payload = {"user": "u", "metadata": {"user_id": "ann"}}
    assert end_user_of("chat/completions", payload) == "u"
    assert end_user_of("responses", {**payload, "safety_identifier": "s"}) == "s"
    assert end_user_of("messages", {"metadata": None}) is None


@pytest.mark.parametrize("path", ["messages/count_tokens", "responses/input_tokens", "embeddings"])
def test_calls_without_an_answer_reserve_no_tokens_for_it(path: str) -> None:
    assert most_output_tokens(Call(path), route(None), 4096) == 0


@pytest.mark.parametrize(
    ("path", "at", "expected"),
    [
        ("messages", route(8192), 8192),
        ("messages", route(None), 128_000),
        ("messages", route(8192, Native), 128_000),
        ("chat/completions", route(8192), 128_000),
    ],
    ids=["lowered", "without a limit", "passed through", "chat"],
)
def test_a_message_reserves_what_the_model_may_answer_with(path: str, at: Route, expected: int) -> None:
    assert most_output_tokens(Call(path, {"max_tokens": 128_000}), at, 4096) == expected


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [-1_000_000, -1, 0])
def test_a_limit_below_one_is_none(name: str, limit: int) -> None:
    assert most_output_tokens(Call("chat/completions", {name: limit}), route(None), 4096) == 4096


@pytest.mark.parametrize(
    ("path", "payload", "expected"),
    [
        ("chat/completions", {"max_output_tokens": 1}, 4096),
        ("responses", {"max_tokens": 1}, 4096),
        ("responses", {"max_output_tokens": 7}, 7),
        ("completions", {"max_completion_tokens": 1}, 4096),
        ("messages", {"max_output_tokens": 1, "max_tokens": 9}, 9),
        ("chat/completions", {"max_tokens": 1, "max_completion_tokens": 900}, 900),
    ],
)
def test_only_the_limits_of_the_endpoint_count(path: str, payload: dict[str, Any], expected: int) -> None:
    assert most_output_tokens(Call(path, payload), route(None), 4096) == expected


def test_a_negative_number_of_answers_reserves_one() -> None:
    assert most_output_tokens(Call("chat/completions", {"max_tokens": 5}, choices=-1000), route(None), 4096) == 5


def test_all_candidates_of_the_best_answer_count() -> None:
    payload = {"best_of": 20, "max_tokens": 5}
    assert most_output_tokens(Call("completions", payload, choices=2, prompts=2), route(None), 4096) == 200
    assert most_output_tokens(Call("chat/completions", payload), route(None), 4096) == 5
