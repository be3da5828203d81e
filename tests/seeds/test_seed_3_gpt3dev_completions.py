"""The server for Hugging Face models, as far as HTTP goes: probe, models, completions and their errors.

Its models are for a later day; the echo model answers under one of their names. What a model that only completes says
to a chat is held where such a backend is (`chat_completions_not_available`): here, one that only chats is asked to
complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.live_server import LiveServer
from tests.fakes.recording_api import RecordingAPI
from tests.snippets import run_bash

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
    file = tmp_path_factory.mktemp("seed-3") / "models.json"
    with RecordingAPI("chat only") as api:
        rows = [{"name": "GPT3-dev", "kind": "echo"}, {"name": "chat-only", "kind": "external", "base_url": api.url}]
        file.write_text(json.dumps(rows))
        with LiveServer({"MODEL_REGISTRY_PATH": str(file)}) as server:
            yield server


def run(text: str, server: LiveServer, folder: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run_bash(text.replace("localhost:8000", f"localhost:{server.port}"), folder))
    return answer


def test_its_models(server: LiveServer, tmp_path: Path) -> None:
    listed = run(LIST_MODELS, server, tmp_path)
    assert [model["id"] for model in listed["data"]] == ["GPT3-dev", "chat-only"]


def test_its_completion(server: LiveServer, tmp_path: Path) -> None:
    completion = run(COMPLETION, server, tmp_path)
    assert completion["object"] == "text_completion"
    assert completion["model"] == "GPT3-dev"
    (choice,) = completion["choices"]
    assert choice.keys() == {"text", "index", "logprobs", "finish_reason"}
    assert choice["text"]


def test_its_stream_ends_with_done(server: LiveServer) -> None:
    body = {"model": "GPT3-dev", "prompt": "Write a haiku", "stream": True}
    stream = requests.post(f"{server.base_url}/completions", json=body, timeout=10)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("door", "body", "code"),
    [
        ("completions", {"prompt": "x"}, "completions_not_available"),
        ("embeddings", {"input": "x"}, "embeddings_backend_unavailable"),
    ],
)
def test_what_a_model_cannot_do_is_a_structured_501(
    server: LiveServer, door: str, body: dict[str, str], code: str
) -> None:
    reply = requests.post(f"{server.base_url}/{door}", json={"model": "chat-only", **body}, timeout=10)
    assert reply.status_code == 501
    assert reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["code"] == code


def test_its_probe(server: LiveServer) -> None:
    reply = requests.get(f"{server.url}/healthz", timeout=10)
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
