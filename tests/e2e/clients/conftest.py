"""The servers that the official clients call, one of each for a test process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

KEYS = ("key-one", "key-two")
"""The keys that `configured_server` accepts."""
UPSTREAM_KEY = "sk-of-the-server"


@pytest.fixture(scope="session")
def echo_server() -> Iterator[LiveServer]:
    """Yield a server without configuration, which has the echo model."""
    with LiveServer() as server:
        yield server


@pytest.fixture(scope="session")
def running_mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def proxy(running_mock: MockUpstream) -> Iterator[LiveServer]:
    """Yield a server that forwards every model to the mock upstream."""
    with LiveServer({"OPENAI_BASE_URL": running_mock.base_url}) as server:
        yield server


@pytest.fixture
def mock(running_mock: MockUpstream) -> MockUpstream:
    """Return the mock upstream with reset counters."""
    running_mock.reset()
    return running_mock


@pytest.fixture(scope="session")
def configured_server(running_mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with API keys, a default upstream and a models file."""
    base_url = running_mock.base_url
    models = [
        {"name": "alias", "kind": "openai", "base_url": base_url, "upstream_model": "mock/model-with-slash"},
        {"name": "team/slow-echo", "kind": "echo", "delay": 0.05, "owned_by": "team", "metadata": {"tier": "test"}},
        {"name": "refused", "kind": "openai", "base_url": base_url, "upstream_model": "fault-status:code=401",
         "api_key_env": "UPSTREAM_KEY"},
        {"name": "keyed", "kind": "openai", "base_url": base_url, "api_key_env": "UPSTREAM_KEY"},
        {"name": "down", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"},
        {"name": "chat-only", "kind": "external", "base_url": f"{running_mock.url}/anything"},
    ]  # fmt: skip
    path = _write_models(tmp_path_factory.mktemp("models"), models)
    environment = {
        "MODELS_FILE": str(path),
        "API_KEYS": ", ".join(KEYS),
        "UPSTREAM_KEY": UPSTREAM_KEY,
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": UPSTREAM_KEY,
    }
    with LiveServer(environment) as server:
        yield server


def _write_models(directory: Path, models: list[dict[str, object]]) -> Path:
    path = directory / "models.json"
    path.write_text(json.dumps(models))
    return path


@pytest.fixture
def echo_client(echo_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=echo_server.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def client(proxy: LiveServer, mock: MockUpstream) -> Iterator[openai.OpenAI]:
    """Yield the official client of a server that forwards to the mock upstream."""
    with openai.OpenAI(base_url=proxy.base_url, api_key="sk-of-the-caller", max_retries=0) as client:
        yield client


@pytest.fixture
def keyed_client(configured_server: LiveServer, mock: MockUpstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=configured_server.base_url, api_key=KEYS[0], max_retries=0) as client:
        yield client
