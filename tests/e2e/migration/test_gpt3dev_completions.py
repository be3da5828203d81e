"""The HTTP interface of the server for Hugging Face models.

The echo model stands in for the weights, as a local model that only completes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.snippets import run_bash

MODELS = [
    "GPT3-dev-350m-2805",
    "GPT3-dev-125m-0104",
    "GPT3-dev-125m-1202",
    "GPT3-dev-125m-0612",
    "GPT3-dev",
    "GPT3-dev-125m",
    "GPT-2",
]

REGISTRY = """\
[
  {
    "name": "GPT3-dev-350m-2805",
    "hf_repo": "k050506koch/GPT3-dev-350m-2805",
    "dtype": "float16",
    "device": "auto",
    "max_context_tokens": 4096
  }
]
"""

LIST_MODELS = """\
curl http://localhost:8000/v1/models
"""

COMPLETION = """\
curl http://localhost:8000/v1/completions \\
  -H "Content-Type: application/json" \\
  -d '{
        "model": "GPT3-dev",
        "prompt": "Write a haiku about fast APIs",
        "max_tokens": 64
      }'
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with its documented settings and a registry file with its model ids."""
    file = tmp_path_factory.mktemp("gpt3dev") / "registry.json"
    (entry,) = json.loads(REGISTRY)
    file.write_text(json.dumps([{**entry, "name": name, "hf_repo": "kind=completions"} for name in MODELS]))
    settings = {
        "MODEL_REGISTRY_PATH": str(file),
        "LOCAL_MODEL_LOADER": LOADER,
        "INCLUDE_DEFAULT_MODELS": "true",
        "DEFAULT_DEVICE": "auto",
        "MAX_CONTEXT_TOKENS": "2048",
        "ENABLE_EMBEDDINGS_BACKEND": "False",
        "CORS_ALLOW_ORIGINS": "https://app.example.com,https://other.example.com",
    }
    with LiveServer(settings) as server:
        yield server


def run(text: str, server: LiveServer, folder: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run_bash(text.replace("localhost:8000", f"localhost:{server.port}"), folder))
    return answer


def test_its_list_of_models(server: LiveServer, tmp_path: Path) -> None:
    listed = run(LIST_MODELS, server, tmp_path)
    assert [model["id"] for model in listed["data"]] == MODELS


def test_its_example_completion(server: LiveServer, tmp_path: Path) -> None:
    completion = run(COMPLETION, server, tmp_path)
    assert completion["object"] == "text_completion"
    assert completion["model"] == "GPT3-dev"
    (choice,) = completion["choices"]
    assert choice.keys() == {"text", "index", "logprobs", "finish_reason"}
    assert choice["text"]


def test_a_stream_ends_with_done(server: LiveServer) -> None:
    body = {"model": "GPT3-dev", "prompt": "Write a haiku", "stream": True}
    stream = requests.post(f"{server.base_url}/completions", json=body, timeout=10)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("endpoint", "body", "code"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "chat_completions_not_available"),
        ("embeddings", {"input": "x"}, "embeddings_backend_unavailable"),
    ],
)
def test_an_unsupported_endpoint_is_a_501(server: LiveServer, endpoint: str, body: dict[str, str], code: str) -> None:
    reply = requests.post(f"{server.base_url}/{endpoint}", json={"model": "GPT3-dev", **body}, timeout=10)
    assert reply.status_code == 501
    assert reply.headers["x-should-retry"] == "false"
    error = reply.json()["error"]
    assert error["code"] == code
    assert endpoint == "embeddings" or "/v1/completions" in error["message"]


def test_its_registry_file_sets_the_context_window(server: LiveServer) -> None:
    model = requests.get(f"{server.base_url}/models/GPT3-dev-350m-2805", timeout=10).json()
    assert model["context_window"] == 4096


def test_its_cors_setting(server: LiveServer) -> None:
    reply = requests.get(f"{server.base_url}/models", headers={"Origin": "https://other.example.com"}, timeout=10)
    assert reply.headers["Access-Control-Allow-Origin"] == "https://other.example.com"


def test_its_health_check(server: LiveServer) -> None:
    reply = requests.get(f"{server.url}/healthz", timeout=10)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
