"""The endpoints, errors and statuses of the server in front of `https://test.com/chatting`.

A local server stands in for the external API. The settings are those of the migration guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests
import yaml

from tests.support.live_server import LiveServer
from tests.support.nginx import free_port
from tests.support.recording_api import RecordingAPI
from tests.support.tools import ROOT

MODELS = {
    "data": [{"id": "mock-gpt-model", "object": "model", "created": 0, "owned_by": "mock", "permission": []}],
}

PAYLOAD = """\
{
    "model": "mock-gpt-model",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the weather like today?"}
    ],
    "temperature": 0.7,
    "stream": false
}
"""

SETTINGS = {
    "EXTERNAL_CHAT_MODEL": "mock-gpt-model",
    "VALIDATION_ERROR_STATUS": "422",
    "UPSTREAM_ERROR_STATUS": "500",
    "LOG_REQUEST_BODIES": "true",
}
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api() -> Iterator[RecordingAPI]:
    with RecordingAPI("It is sunny today.", streams=False) as api:
        yield api


@pytest.fixture(scope="module")
def server(api: RecordingAPI) -> Iterator[LiveServer]:
    with LiveServer({"EXTERNAL_CHAT_URL": api.url, **SETTINGS}) as server:
        yield server


def post(server: LiveServer, body: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/chat/completions", body, headers=HEADERS, timeout=10)


def test_its_list_of_models(server: LiveServer) -> None:
    """Compare all documented keys. The owner differs."""
    (model,) = requests.get(f"{server.url}/models", timeout=10).json()["data"]
    assert model == {**MODELS["data"][0], "owned_by": "external"}


def test_its_list_of_models_including_the_owner(api: RecordingAPI, tmp_path: Path) -> None:
    """Use a models file, which can set the owner."""
    entry = {"name": "mock-gpt-model", "kind": "external", "base_url": api.url, "owned_by": "mock"}
    file = tmp_path / "models.yaml"
    file.write_text(yaml.safe_dump([entry]))
    with LiveServer({"MODEL_REGISTRY_PATH": str(file)}) as server:
        assert requests.get(f"{server.url}/models", timeout=10).json()["data"] == MODELS["data"]
        assert post(server, PAYLOAD).json()["choices"][0]["message"]["content"] == "It is sunny today."


def test_its_example_payload(server: LiveServer, api: RecordingAPI) -> None:
    reply = post(server, PAYLOAD)
    assert reply.status_code == 200
    completion = reply.json()
    assert re.fullmatch("chatcmpl-.+", completion["id"])
    assert (completion["object"], completion["model"]) == ("chat.completion", "mock-gpt-model")
    (choice,) = completion["choices"]
    assert choice["message"] == {"role": "assistant", "content": "It is sunny today.", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] > 0
    sent = json.loads(PAYLOAD)
    assert api.bodies[-1]["messages"] == sent["messages"]
    assert api.bodies[-1]["temperature"] == 0.7


def test_a_stream_has_an_event_for_each_token(server: LiveServer) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="mock-gpt-model", messages=[{"role": "user", "content": "Weather?"}], stream=True
        )
        choices = [chunk.choices[0] for chunk in stream]
    tokens = [choice.delta.content for choice in choices if choice.delta.content]
    assert "".join(tokens) == "It is sunny today."
    assert len(tokens) >= 4
    assert choices[-1].finish_reason == "stop"


@pytest.mark.parametrize("body", ['{"messages": "hello"}', "{}", "{", '{"messages": [{"role": "user"}]}'])
def test_an_invalid_payload_is_422(server: LiveServer, body: str) -> None:
    reply = post(server, body)
    assert reply.status_code == 422
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_failed_connection_to_the_external_api_is_500() -> None:
    unreachable = f"http://127.0.0.1:{free_port()}/chatting"
    with LiveServer({"EXTERNAL_CHAT_URL": unreachable, **SETTINGS}) as server:
        reply = post(server, PAYLOAD)
        assert reply.status_code == 500
        assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
        assert "127.0.0.1" not in reply.text


def test_an_error_of_the_external_api_is_500() -> None:
    with RecordingAPI("broken", status=500) as api, LiveServer({"EXTERNAL_CHAT_URL": api.url, **SETTINGS}) as server:
        assert post(server, PAYLOAD).status_code == 500


def test_raw_requests_are_logged(server: LiveServer) -> None:
    post(server, PAYLOAD.replace("the weather like today", "logged here, with sk-1234567890abcdef"))
    (line,) = [line for line in server.log().splitlines() if "logged here" in line]
    assert '"temperature": 0.7' in line
    assert "sk-1234567890abcdef" not in line


def test_the_migration_guide_names_its_settings() -> None:
    guide = (ROOT / "docs" / "guides" / "migrating.md").read_text()
    for name, value in SETTINGS.items():
        assert f"`{name}={value}`" in guide


HOOKS = """
def prepare(request, call):
    request["messages"][-1]["content"] += " Please."


def finish(reply, call):
    reply["choices"][0]["message"]["content"] += " (from a friend)"


def choose(request, call):
    return "cheap" if len(request["messages"]) == 1 else None
"""


@pytest.fixture(scope="module")
def customized(api: RecordingAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("custom")
    (folder / "rules.py").write_text(HOOKS)
    hooks = {"choose_model": "rules:choose", "before_request": "rules:prepare", "after_reply": "rules:finish"}
    declared = {
        "request": {"body": {"prompt": "{{ last_user_message }}", "heat": "{{ temperature }}"}},
        "reply": {"text": "data.answer"},
    }
    entry = {"name": "mock-gpt-model", "kind": "external", "base_url": api.url, "hooks": hooks, **declared}
    (folder / "models.yaml").write_text(yaml.safe_dump([entry, {"name": "cheap", "kind": "echo"}]))
    with LiveServer({"MODEL_REGISTRY_PATH": "models.yaml"}, folder=folder) as server:
        yield server


class TestItsCustomization:
    """Declarations and hooks in place of "Change External API", "Pre/Post-Processing" and "Multi-Backend Support"."""

    def test_another_api_with_pre_and_post_processing(self, customized: LiveServer, api: RecordingAPI) -> None:
        answer = post(customized, PAYLOAD).json()
        assert api.bodies[-1] == {"prompt": "What is the weather like today? Please.", "heat": 0.7}
        assert answer["choices"][0]["message"]["content"] == "It is sunny today. (from a friend)"

    def test_a_hook_chooses_the_model(self, customized: LiveServer) -> None:
        body = json.dumps({"model": "mock-gpt-model", "messages": [{"role": "user", "content": "Hi"}]})
        assert post(customized, body).json()["model"] == "cheap"
