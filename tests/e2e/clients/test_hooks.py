"""Hooks of a models file with the echo model and with forwarded models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from tests.support.live_server import LiveServer
from tests.support.messages_events import parse_events, read_message
from tests.support.mock_upstream import MockUpstream

HOOKS = """
import json
from dataclasses import replace
from pathlib import Path

from openai_compat.core.types import ChatDelta
from openai_compat.core.errors import InvalidRequestError


def choose(request, call):
    return call.header("x-model")


def prepare(request, call):
    if request.get("user") == "banned":
        raise InvalidRequestError("You are not welcome.", param="user")
    if request.get("user") == "broken":
        return 1 / 0
    if "messages" in request:
        request["messages"].append({"role": "user", "content": f"prepared for {call.model}"})
        return {**request, "temperature": 0.25}


def shout(delta, call):
    text = delta.content if isinstance(delta, ChatDelta) else delta.text
    if not text:
        return delta
    if "secret" in text:
        return None
    return replace(delta, **{"content" if isinstance(delta, ChatDelta) else "text": text.upper()})


def sign(reply, call):
    Path("seen.jsonl").open("a").write(json.dumps([call.request_id, reply]) + "\\n")
    return {**reply, "signed": True}


def censor(reply, call):
    reply["choices"][0]["message"]["content"] = "[censored]"


def quiet(request, call):
    return None
"""
QUESTION: Any = [{"role": "user", "content": "Hello there"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def folder(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "rules.py").write_text(HOOKS)
    forwarded = {"kind": "openai", "base_url": upstream.base_url, "upstream_model": "mock-model"}
    everything = {"before_request": "rules:prepare", "on_delta": "rules:shout", "after_reply": "rules:sign"}
    entries = [
        {"name": "echo", "kind": "echo", "hooks": everything},
        {"name": "censored", "kind": "echo", "hooks": {"after_reply": "rules:censor"}},
        {"name": "chooses", "kind": "echo", "hooks": {"choose_model": "rules:choose"}},
        {"name": "forwarded", **forwarded, "hooks": {"before_request": "rules:prepare"}},
        {"name": "quiet", **forwarded, "upstream_model": None, "hooks": {"before_request": "rules:quiet"}},
        {"name": "signed", **forwarded, "hooks": {"after_reply": "rules:sign"}},
        {"name": "shouted", **forwarded, "hooks": everything},
    ]
    (folder / "models.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    with LiveServer({"MODELS_FILE": "models.json"}, folder=folder) as server:
        yield server


def ask(server: LiveServer, model: str, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
    body = {"model": model, "messages": QUESTION, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=10)


def seen(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("model", "text"), [("echo", "PREPARED FOR ECHO"), ("shouted", "YOU SAID: PREPARED FOR SHOUTED")]
)
def test_all_hooks_of_a_complete_answer_and_a_stream(server: LiveServer, folder: Path, model: str, text: str) -> None:
    answer = ask(server, model).json()
    assert (answer["choices"][0]["message"]["content"], answer["signed"]) == (text, True)
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    request_id, reply = seen(folder)[-1]
    assert request_id.startswith("req_")
    assert reply["choices"][0]["message"]["content"] == text
    assert reply["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("model", "text"), [("echo", "PREPARED FOR ECHO"), ("shouted", "YOU SAID: PREPARED FOR SHOUTED")]
)
def test_all_hooks_of_the_messages_api(server: LiveServer, folder: Path, model: str, text: str) -> None:
    def send(model: str, **more: Any) -> requests.Response:
        body = {"model": model, "max_tokens": 99, "messages": QUESTION, **more}
        return requests.post(f"{server.base_url}/messages", json=body, timeout=10)

    assert send(model).json()["content"] == [{"type": "text", "text": text}]
    assert read_message(parse_events(send(model, stream=True).content))["content"] == [{"type": "text", "text": text}]
    assert seen(folder)[-1][1]["choices"][0]["message"]["content"] == text
    assert send("censored").json()["content"] == [{"type": "text", "text": "[censored]"}]


@pytest.mark.parametrize(
    ("model", "text"), [("echo", "PREPARED FOR ECHO"), ("shouted", "YOU SAID: PREPARED FOR SHOUTED")]
)
def test_all_hooks_of_the_responses_api(server: LiveServer, folder: Path, model: str, text: str) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        assert client.responses.create(model=model, input="Hello there").output_text == text
        with client.responses.stream(model=model, input="Hello there") as stream:
            stream.until_done()
            assert stream.get_final_response().output_text == text
        assert client.responses.create(model="censored", input="Hello there").output_text == "[censored]"
    assert seen(folder)[-1][1]["choices"][0]["message"]["content"] == text


def test_a_dropped_delta_leaves_the_finish_reason(server: LiveServer) -> None:
    reply = requests.post(f"{server.base_url}/completions", json={"model": "echo", "prompt": "secret"}, timeout=10)
    (choice,) = reply.json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")


def test_answers_are_forwarded_if_no_hook_reads_them(server: LiveServer, upstream: MockUpstream) -> None:
    assert ask(server, "forwarded", stream=True).text.endswith("data: [DONE]\n\n")
    sent = json.loads(upstream.requests()[-1]["body"])
    assert sent["messages"][-1]["content"] == "prepared for forwarded"
    assert (sent["temperature"], sent["model"]) == (0.25, "mock-model")


def test_an_unchanged_request_is_forwarded_byte_for_byte(server: LiveServer, upstream: MockUpstream) -> None:
    body = b'{ "model": "quiet",  "messages": [{"role":"user","content":"x"}], "x": 1.50 }'
    headers = {"content-type": "application/json"}
    requests.post(f"{server.base_url}/chat/completions", body, headers=headers, timeout=10)
    assert upstream.requests()[-1]["body"].encode() == body


def test_after_reply_changes_a_forwarded_answer(server: LiveServer) -> None:
    assert ask(server, "signed").json()["signed"] is True
    reply = requests.post(f"{server.base_url}/embeddings", json={"model": "signed", "input": "x"}, timeout=10)
    assert reply.json()["signed"] is True


def test_a_hook_that_cannot_run_is_a_501(server: LiveServer) -> None:
    reply = requests.post(f"{server.base_url}/completions", json={"model": "shouted", "prompt": "x"}, timeout=10)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "hook_not_available")
    reply = requests.post(f"{server.base_url}/embeddings", json={"model": "shouted", "input": "x"}, timeout=10)
    assert reply.json()["signed"] is True


def test_ask_runs_hooks(server: LiveServer) -> None:
    body = {"model": "echo", "messages": QUESTION}
    assert requests.post(f"{server.url}/ask?format=text", json=body, timeout=10).text == "PREPARED FOR ECHO"


def test_choose_model_selects_another_model(server: LiveServer) -> None:
    assert ask(server, "chooses").json()["model"] == "chooses"
    assert ask(server, "chooses", {"x-model": "signed"}).json()["signed"] is True
    assert ask(server, "chooses", {"x-model": "unknown"}).status_code == 404


@pytest.mark.parametrize("model", ["echo", "forwarded"])
def test_exceptions_of_a_hook(server: LiveServer, model: str) -> None:
    rejected = ask(server, model, user="banned")
    assert (rejected.status_code, rejected.json()["error"]["message"]) == (400, "You are not welcome.")
    broken = ask(server, model, user="broken")
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" in server.log()
    assert "ZeroDivisionError" not in broken.text


@pytest.mark.parametrize(
    ("hooks", "error"),
    [
        ("rules:prepare", "hooks must be a mapping"),
        ({"after": "json:loads"}, "hooks has the unknown key 'after'"),
        ({"on_delta": "json"}, "on_delta must be package.module:function"),
        ({"on_delta": "json:nothing"}, "json:nothing cannot be loaded"),
        ({"on_delta": "nowhere.module:f"}, "cannot be loaded: No module named 'nowhere'"),
        ({"on_delta": "json:__name__"}, "is not a function"),
    ],
)
def test_an_invalid_hook_is_reported_at_startup(tmp_path: Path, hooks: Any, error: str) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"name": "a", "kind": "echo", "hooks": hooks}]))
    with pytest.raises(ConfigurationError) as rejected:
        environment.load({"MODELS_FILE": str(file)})
    assert error in rejected.value.message


@pytest.mark.parametrize("responses", ["native", "sometimes"])
def test_hooks_cannot_see_calls_that_are_passed_through(tmp_path: Path, responses: str) -> None:
    file = tmp_path / "models.json"
    entry = {"name": "a", "kind": "openai", "base_url": "http://x/v1", "hooks": {"before_request": "json:dumps"}}
    file.write_text(json.dumps([{**entry, "responses": responses}]))
    with pytest.raises(ConfigurationError) as rejected:
        environment.load({"MODELS_FILE": str(file)})
    assert "responses" in rejected.value.message
