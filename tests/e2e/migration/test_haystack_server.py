"""Migration from the Haystack server, with its `.env`, its request and its Python and JavaScript clients unchanged.

The mock upstream replaces OpenAI, so the `.env` gets one more line, `OPENAI_BASE_URL`, and a free port.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests

from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import free_port
from tests.support.snippets import run_javascript, run_python
from tests.support.subprocess_server import SubprocessServer, run_server
from tests.support.tools import ROOT

DOT_ENV = """\
OPENAI_API_KEY=your-openai-api-key
API_PORT=8001
API_HOST=0.0.0.0
"""

REQUEST = """\
{
  "model": "gpt-4o",
  "messages": [
    { "role": "system", "content": "You are a helpful assistant." },
    { "role": "user", "content": "Hello!" }
  ],
  "temperature": 0.7,
  "stream": false
}
"""

PYTHON = """\
import openai

client = openai.OpenAI(
    api_key="any-key-works",  # API key is ignored but required
    base_url="http://localhost:8001/v1"  # Point to your server
)

response = client.chat.completions.create(
    model="gpt-4o",
    messages=[
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is FastAPI?"}
    ]
)

print(response.choices[0].message.content)
"""

JAVASCRIPT = """\
import OpenAI from "openai";

const openai = new OpenAI({
  apiKey: "any-key-works",
  baseURL: "http://localhost:8001/v1",
});

async function main() {
  const completion = await openai.chat.completions.create({
    model: "gpt-4o",
    messages: [
      { role: "system", content: "You are a helpful assistant." },
      { role: "user", content: "What is FastAPI?" },
    ],
  });

  console.log(completion.choices[0].message.content);
}

main();
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream("--api-key", "your-openai-api-key") as upstream:
        yield upstream


@pytest.fixture(scope="module", params=["passthrough", pytest.param("pipeline", marks=pytest.mark.extra("haystack"))])
def server(
    upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SubprocessServer]:
    """Yield the server with the `.env` alone, which forwards calls, and with a models file that adds a pipeline."""
    folder, port = tmp_path_factory.mktemp("migration"), free_port()
    settings = DOT_ENV.replace("8001", str(port)) + f"OPENAI_BASE_URL={upstream.base_url}\n"
    if request.param == "pipeline":
        (folder / "models.yaml").write_text("- {name: gpt-4o, kind: haystack}\n")
        settings += "MODEL_REGISTRY_PATH=models.yaml\n"
    (folder / ".env").write_text(settings)
    with run_server(
        [sys.executable, "-m", "openai_compat", "serve"], port, folder, {"PYTHONPATH": str(ROOT)}
    ) as server:
        yield server


def with_port(text: str, server: SubprocessServer) -> str:
    return text.replace("localhost:8001", f"localhost:{server.port}")


def test_its_model_list(server: SubprocessServer) -> None:
    listed = requests.get(f"{server.url}/v1/models", timeout=10).json()
    assert listed["object"] == "list"
    assert {model["object"] for model in listed["data"]} == {"model"}


def test_its_request(server: SubprocessServer) -> None:
    reply = requests.post(
        f"{server.url}/v1/chat/completions", REQUEST, headers={"Content-Type": "application/json"}, timeout=10
    )
    completion = reply.json()
    assert (reply.status_code, completion["model"]) == (200, "gpt-4o")
    assert "Hello!" in completion["choices"][0]["message"]["content"]


def test_its_request_streamed(server: SubprocessServer) -> None:
    """The predecessor streams if the request has `"stream": true`."""
    streamed = requests.post(
        f"{server.url}/v1/chat/completions", json={**json.loads(REQUEST), "stream": True}, timeout=10
    )
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.text.count("data: {") > 3
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_its_python_client(server: SubprocessServer, tmp_path: Path) -> None:
    assert "What is FastAPI?" in run_python(with_port(PYTHON, server), tmp_path)


def test_its_javascript_client(server: SubprocessServer, tmp_path: Path) -> None:
    assert "What is FastAPI?" in run_javascript(with_port(JAVASCRIPT, server), tmp_path)


def test_any_key_works_and_the_upstream_gets_the_configured_key(
    server: SubprocessServer, upstream: MockUpstream
) -> None:
    """The upstream refuses every key but the one in the `.env`, so the caller's key was not forwarded."""
    with openai.OpenAI(api_key="anything", base_url=f"{server.url}/v1", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].finish_reason == "stop"
    assert "anything" not in json.dumps(upstream.requests()[-1])


def test_its_conversation_history_reaches_the_model(server: SubprocessServer, upstream: MockUpstream) -> None:
    """The client sends the history with each request, as OpenAI's clients do."""
    messages = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    body = {"model": "gpt-4o", "messages": messages}
    usage = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=10).json()["usage"]
    short = requests.post(
        f"{server.url}/v1/chat/completions", json={**body, "messages": messages[-1:]}, timeout=10
    ).json()["usage"]
    assert usage["prompt_tokens"] > short["prompt_tokens"]


def test_its_stateful_chat(server: SubprocessServer) -> None:
    """A pipeline keeps the history of a conversation that has an id. A forwarded call does not."""
    body = {"model": "gpt-4o", "conversation_id": "ada"}
    tokens = []
    for text in ("My name is Ada.", "What is my name?"):
        request = {**body, "messages": [{"role": "user", "content": text}]}
        reply = requests.post(f"{server.url}/v1/chat/completions", json=request, timeout=20).json()
        tokens.append(reply["usage"]["prompt_tokens"])
    is_pipeline = "pipeline" in requests.get(f"{server.url}/v1/models/gpt-4o", timeout=10).json()
    assert (tokens[1] > tokens[0] + 8) == is_pipeline


def test_the_migration_guide_names_its_settings() -> None:
    guide = (ROOT / "docs" / "guides" / "migrating.md").read_text()
    assert "`OPENAI_API_KEY`, `API_PORT=8001`, `API_HOST`" in guide
