"""The examples of the chat API for Databricks Apps, against this server with `PORT=5000`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.fake_databricks import PERSONAL_TOKEN, Workspace
from tests.support.live_server import LiveServer
from tests.support.nginx import free_port
from tests.support.snippets import run_bash, run_python
from tests.support.subprocess_server import SubprocessServer, run_server
from tests.support.tools import ROOT

CURL = """\
curl -X POST "http://localhost:5000/api/v1/chat/completions" \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [
      {"role": "user", "content": "Hello, how are you?"}
    ]
  }'
"""

PYTHON = """\
import requests

response = requests.post(
    "http://localhost:5000/api/v1/chat/completions",
    json={
        "messages": [
            {"role": "user", "content": "Hello, how are you?"}
        ]
    }
)

print(response.json())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubprocessServer]:
    """Yield a server with another port in place of 5000."""
    port = free_port()
    command = [sys.executable, "-m", "openai_compat", "serve"]
    environment = {"PORT": str(port), "PYTHONPATH": str(ROOT)}
    with run_server(command, port, tmp_path_factory.mktemp("databricks-chat"), environment) as server:
        yield server


def with_port(text: str, server: SubprocessServer) -> str:
    return text.replace("localhost:5000", f"localhost:{server.port}")


def assert_is_completion(completion: dict[str, Any]) -> None:
    """Check the documented fields of the response. It also has `usage` and `model`."""
    assert re.fullmatch("chatcmpl-.+", str(completion["id"]))
    assert completion["object"] == "chat.completion"
    assert type(completion["created"]) is int
    (choice,) = completion["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Hello, how are you?"
    assert choice["finish_reason"] == "stop"


def test_the_curl_example(server: SubprocessServer, tmp_path: Path) -> None:
    assert_is_completion(json.loads(run_bash(with_port(CURL, server), tmp_path)))


def test_the_python_example(server: SubprocessServer, tmp_path: Path) -> None:
    printed = run_python(with_port(PYTHON, server), tmp_path)
    assert_is_completion(eval(printed, {"__builtins__": {}}))  # noqa: S307 - Python's own print of a dict


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": "hello"}, {"messages": None}])
def test_its_validation_errors(server: SubprocessServer, body: dict[str, object]) -> None:
    reply = requests.post(f"{server.url}/api/v1/chat/completions", json=body, timeout=10)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "messages"
    assert isinstance(error["code"], str)


def test_its_health_check(server: SubprocessServer) -> None:
    reply = requests.get(f"{server.url}/api/v1/healthcheck", timeout=10)
    assert reply.status_code == 200
    health = reply.json()
    assert list(health) == ["status", "timestamp", "service"]
    assert health["status"] == "healthy"
    assert health["service"] == "openai-compatible-api"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", health["timestamp"])
    assert abs((datetime.now() - datetime.fromisoformat(health["timestamp"])).total_seconds()) < 86_400


def test_its_documentation_page(server: SubprocessServer) -> None:
    page = requests.get(f"{server.url}/docs", timeout=10)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    assert "/v1/chat/completions" in document["paths"]


def test_its_planned_features_work(server: SubprocessServer) -> None:
    """Check "streaming support with SSE", "more request parameters" and "usage statistics"."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0.2, "max_tokens": 1}
    usage = requests.post(f"{server.url}/api/v1/chat/completions", json=body, timeout=10).json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    stream = requests.post(f"{server.url}/api/v1/chat/completions", json={**body, "stream": True}, timeout=10)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


def test_the_migration_guide_names_its_settings() -> None:
    assert "`PORT=5000`" in (ROOT / "docs" / "guides" / "migrating.md").read_text()


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace() as workspace:
        yield workspace


@pytest.fixture(scope="module")
def connected(workspace: Workspace) -> Iterator[LiveServer]:
    """Yield a server that is connected to serving endpoints and requires API keys."""
    environment = {"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": PERSONAL_TOKEN}
    with LiveServer({**environment, "DATABRICKS_ENDPOINTS": "echo,limited", "API_KEYS": "a-key"}) as server:
        yield server


class TestRealModels:
    """The points of "When ready to integrate real models", at the documented path."""

    def ask(self, server: LiveServer, key: str = "a-key", **body: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"}
        request = {"messages": [{"role": "user", "content": "Hello, how are you?"}], **body}
        return requests.post(f"{server.url}/api/v1/chat/completions", json=request, headers=headers, timeout=10)

    def test_an_endpoint_answers(self, connected: LiveServer, workspace: Workspace) -> None:
        answer = self.ask(connected, temperature=0.2, max_tokens=50).json()
        assert answer["choices"][0]["message"]["content"] == "Hello, how are you?"
        assert answer["usage"]["total_tokens"] > 0
        sent = workspace.bodies[-1]
        assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("echo", 0.2, 50)

    def test_an_endpoint_streams(self, connected: LiveServer) -> None:
        assert self.ask(connected, stream=True).text.endswith("data: [DONE]\n\n")

    def test_tools_reach_the_endpoint(self, connected: LiveServer, workspace: Workspace) -> None:
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
        assert self.ask(connected, tools=tools, tool_choice="auto").status_code == 200
        assert workspace.bodies[-1]["tools"] == tools

    def test_a_wrong_api_key_is_a_401_and_a_rate_limit_a_429(self, connected: LiveServer) -> None:
        assert self.ask(connected, key="another").status_code == 401
        limited = self.ask(connected, model="limited")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
        assert limited.json()["error"].keys() == {"message", "type", "param", "code"}
