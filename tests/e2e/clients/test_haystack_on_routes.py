"""Pipelines with fallbacks, as targets of an alias, as fallbacks, and on top of a model that has routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import free_port

pytestmark = pytest.mark.extra("haystack")

TEXT = "Cats purr when they are content"
SOURCES = "\n\nSources:\n[1] Cats (cats.md)"
FACTORIES = """
from haystack import Pipeline, component


@component
class Breaks:
    @component.output_types(replies=list[str])
    def run(self, query: str):
        raise ValueError("private words")


def breaks():
    pipeline = Pipeline()
    pipeline.add_component("breaks", Breaks())
    return pipeline


def cannot_load():
    raise ValueError("private words")
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "factories.py").write_text(FACTORIES)
    (folder / "documents").mkdir()
    (folder / "documents" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    unreachable = f"http://127.0.0.1:{free_port()}/v1"
    routed = {"retries": 0, "cooldown": 0, "fallbacks": ["echo"]}
    over_mock = {"kind": "haystack", "base_url": upstream.base_url}
    models: list[dict[str, Any]] = [
        {"name": "echo", "kind": "echo"},
        {"name": "pets", "kind": "haystack", "documents": "documents", "generator": "echo"},
        # Pipelines with fallbacks that fail in different ways.
        {"name": "unreachable", "kind": "haystack", "base_url": unreachable, "upstream_model": "x", **routed},
        {"name": "busy", **over_mock, "upstream_model": "fault-status:code=429", **routed},
        {"name": "breaks", "kind": "haystack", "factory": "factories:breaks", **routed},
        {"name": "unloadable", "kind": "haystack", "factory": "factories:cannot_load", **routed},
        {"name": "slow", **over_mock, "upstream_model": "fault-hang", "timeout": {"first_token": 0.5}, **routed},
        # Pipelines as a target and as a fallback.
        {"name": "alias", "targets": {"pets": 1}},
        {"name": "alias-with-fallback", "targets": {"breaks": 1}, "fallbacks": ["pets"], "cooldown": 0},
        {"name": "dead", "kind": "openai", "base_url": unreachable, "retries": 0, "cooldown": 0, "fallbacks": ["pets"]},
        # Pipelines on top of a model that has routes.
        {"name": "routed-model", "kind": "openai", "base_url": unreachable, **routed},
        {"name": "aliased-model", "targets": {"routed-model": 0, "echo": 1}},
        {"name": "over-fallbacks", "kind": "haystack", "documents": "documents", "generator": "routed-model"},
        {"name": "over-alias", "kind": "haystack", "documents": "documents", "generator": "aliased-model"},
    ]
    (folder / "models.json").write_text(json.dumps(models))
    with LiveServer({"MODELS_FILE": "models.json"}, workers=2, folder=folder) as server:
        yield server


def ask(server: LiveServer, model: str, **more: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": TEXT}], **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=30)


def text_of_stream(server: LiveServer, model: str) -> str:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": TEXT}]
        stream = client.chat.completions.create(model=model, messages=messages, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@pytest.mark.parametrize("model", ["unreachable", "busy", "breaks", "unloadable"])
def test_a_failing_pipeline_falls_back(server: LiveServer, model: str) -> None:
    reply = ask(server, model)
    assert (reply.status_code, reply.json()["choices"][0]["message"]["content"]) == (200, TEXT)
    assert (reply.json()["model"], reply.headers["x-openai-compat-upstream"]) == ("echo", "echo")
    assert reply.headers["x-openai-compat-fallback"] == "true"
    assert text_of_stream(server, model) == TEXT
    assert "private words" not in reply.text


def test_a_pipeline_without_a_first_token_in_time_falls_back(server: LiveServer, upstream: MockUpstream) -> None:
    """Its call to the model ends as well."""
    assert text_of_stream(server, "slow") == TEXT
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)


@pytest.mark.parametrize("model", ["alias", "alias-with-fallback", "dead", "over-fallbacks", "over-alias"])
def test_sources_are_cited_on_every_route(server: LiveServer, model: str) -> None:
    reply = ask(server, model).json()
    message = reply["choices"][0]["message"]
    answering = model if model.startswith("over-") else "pets"
    assert (message["content"], reply["model"]) == (TEXT + SOURCES, answering)
    assert message["annotations"][0]["url_citation"]["url"] == "cats.md"
    assert text_of_stream(server, model) == TEXT + SOURCES


def test_a_conversation_continues_through_an_alias(server: LiveServer) -> None:
    def tokens(model: str) -> int:
        body = {"conversation_id": "c-1", "messages": [{"role": "user", "content": "Hello there"}]}
        return int(ask(server, model, **body).json()["usage"]["prompt_tokens"])

    first, second = tokens("alias"), tokens("alias")
    assert second > first
    assert tokens("pets") > second, "the conversation belongs to the target, not to the alias"
