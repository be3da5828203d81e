"""Parameter profiles and hooks of the targets of a route. Only those of the answering target apply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import free_port
from tests.support.recording_api import RecordingAPI
from tests.unit.config.test_environment import problems

ADAPTED = "x-openai-compat-adapted"
HOOKS = """
from dataclasses import replace

from openai_compat.core.errors import RateLimitedError


def mark(delta, call):
    return replace(delta, content=f"<{delta.content}>") if delta.content else delta


def sign(reply, call):
    print("signed", call.model, reply["choices"][0]["message"]["content"], flush=True)
    return {**reply, "signed": True}


def fail(request, call):
    raise ValueError


def limit(request, call):
    raise RateLimitedError("Enough.", retry_after=9)
"""
PROFILE = {
    "drop": ["user"],
    "rename": {"max_completion_tokens": "max_tokens"},
    "emulate": ["stream_options"],
    "roles": {"developer": "system"},
}
REQUEST: dict[str, Any] = {
    "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello there"}],
    "user": "zoe",
    "seed": 7,
    "max_completion_tokens": 50,
}
ADAPTATIONS = {"messages.role=system", "user=dropped", "max_completion_tokens=max_tokens"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def api() -> Iterator[RecordingAPI]:
    with RecordingAPI("It is sunny.", streams=False) as api:
        yield api


@pytest.fixture(scope="module")
def server(upstream: MockUpstream, api: RecordingAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "rules.py").write_text(HOOKS)
    unreachable = f"http://127.0.0.1:{free_port()}/v1"
    alive = {"kind": "openai", "base_url": upstream.base_url, "upstream_model": "mock-model"}
    dead = {"kind": "openai", "base_url": unreachable, "retries": 1, "max_retry_wait": 0.1, "cooldown": 0}
    entries: list[dict[str, Any]] = [
        {"name": "adapted", **alive, "profile": "small"},
        {"name": "strict", **alive, "profile": {"extends": "small", "strict": True}},
        {"name": "plain", **alive},
        {"name": "external", "kind": "external", "base_url": api.url, "profile": "small"},
        {"name": "either", "targets": ["adapted"]},
        {"name": "dead", **dead, "profile": {"drop": ["seed"]}, "fallbacks": ["adapted"]},
        {"name": "dead-then-plain", **dead, "profile": "small", "fallbacks": ["plain"]},
        {"name": "dead-then-external", **dead, "fallbacks": ["external"]},
        {"name": "dead-then-strict", **dead, "fallbacks": ["strict"]},
        {"name": "strict-first", **alive, "profile": {"extends": "small", "strict": True}, "fallbacks": ["plain"]},
        {"name": "marked", "kind": "echo", "hooks": {"on_delta": "rules:mark"}},
        {"name": "dead-then-marked", **dead, "fallbacks": ["marked"]},
        {"name": "marked-openai", **alive, "hooks": {"on_delta": "rules:mark", "after_reply": "rules:sign"}},
        {"name": "dead-then-marked-openai", **dead, "fallbacks": ["marked-openai"]},
        {"name": "marked-alias", "targets": ["marked-openai"]},
        {"name": "dead-and-marked", **dead, "hooks": {"on_delta": "rules:mark"}, "fallbacks": ["plain"]},
        {"name": "fails", "kind": "echo", "hooks": {"before_request": "rules:fail"}, "fallbacks": ["plain"]},
        {"name": "limits", "kind": "echo", "hooks": {"before_request": "rules:limit"}, "fallbacks": ["plain"]},
    ]
    (folder / "models.json").write_text(json.dumps({"profiles": {"small": PROFILE}, "models": entries}))
    with LiveServer({"MODELS_FILE": "models.json"}, folder=folder) as server:
        yield server


def ask(server: LiveServer, model: str, **more: Any) -> requests.Response:
    body = {"model": model, **REQUEST, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=20)


def adaptations_of(reply: requests.Response) -> set[str]:
    assert reply.status_code == 200, reply.text
    return set(filter(None, reply.headers.get(ADAPTED, "").split(", ")))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["adapted", "either", "dead", "external", "dead-then-external"])
def test_the_request_is_adapted_to_the_answering_target(
    server: LiveServer, upstream: MockUpstream, api: RecordingAPI, model: str, stream: bool
) -> None:
    """The failed target before it has another profile."""
    reply = ask(server, model, stream=stream)
    assert adaptations_of(reply) == ADAPTATIONS
    sent = api.bodies[-1] if "external" in model else json.loads(upstream.requests()[-1]["body"])
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert (sent["seed"], sent["max_tokens"]) == (7, 50)
    assert sent.keys().isdisjoint({"user", "max_completion_tokens", "stream_options"})


def test_what_was_adapted_for_an_upstream_that_failed_is_not_adaptations_of(server: LiveServer) -> None:
    assert adaptations_of(ask(server, "dead-then-plain")) == set()


@pytest.mark.parametrize("model", ["adapted", "either", "dead", "external"])
def test_usage_of_a_stream_is_counted_if_the_upstream_reports_none(
    server: LiveServer, upstream: MockUpstream, model: str
) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        request: Any = {"model": model, **REQUEST, "stream": True, "stream_options": {"include_usage": True}}
        with client.chat.completions.with_streaming_response.create(**request) as reply:
            chunks = list(reply.parse())
            assert "stream_options=emulated" in reply.headers[ADAPTED]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_strict_model_rejects_the_call_without_a_fallback(
    server: LiveServer, upstream: MockUpstream, stream: bool
) -> None:
    upstream.reset()
    reply = ask(server, "strict-first", stream=stream)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, "messages.role", "unsupported_parameter")
    assert upstream.requests() == []


def test_a_strict_fallback_leaves_the_first_failure_to_be_adaptations_of(server: LiveServer) -> None:
    reply = ask(server, "dead-then-strict")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_unreachable")


@pytest.mark.parametrize(("model", "is_marked"), [("dead-then-marked", True), ("dead-and-marked", False)])
@pytest.mark.parametrize("stream", [False, True])
def test_each_target_has_its_own_hooks(server: LiveServer, model: str, is_marked: bool, stream: bool) -> None:
    text = ask(server, model, stream=stream, user=None).text
    assert ("<Hello" in text) == is_marked


@pytest.mark.parametrize("model", ["dead-then-marked-openai", "marked-alias"])
def test_a_forwarded_target_has_its_own_hooks(server: LiveServer, model: str) -> None:
    complete = ask(server, model, user=None).json()
    text = complete["choices"][0]["message"]["content"]
    assert (text.startswith("<"), complete["signed"]) == (True, True)
    streamed = ask(server, model, user=None, stream=True).text
    assert "<You" in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    assert server.log().count("signed marked-openai <") >= 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_a_hook_raises_is_returned_and_a_failed_hook_falls_back(server: LiveServer, stream: bool) -> None:
    assert ask(server, "fails", stream=stream).headers["x-openai-compat-upstream"] == "plain"
    rejected = ask(server, "limits", stream=stream)
    assert (rejected.status_code, rejected.headers["retry-after"]) == (429, "9")
    assert rejected.json()["error"] == {
        "message": "Enough.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_an_alias_has_no_hooks_and_no_profile_of_its_own(tmp_path: Path) -> None:
    entries = [{"name": "a", "kind": "echo"}, {"name": "b", "targets": ["a"], "hooks": {}, "profile": {}}]
    (tmp_path / "models.json").write_text(json.dumps(entries))
    assert problems(MODELS_FILE=str(tmp_path / "models.json")) == (
        "model 'b' has targets, so the key 'hooks' belongs to them",
        "model 'b' has targets, so the key 'profile' belongs to them",
    )
