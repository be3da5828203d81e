"""The servers that browsers talk to, each behind an nginx with the shipped configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

STORYTELLER = "tests.support.slow_stream_server:SlowStreamBackend"


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture
def upstream(running_upstream: MockUpstream) -> MockUpstream:
    """The mock upstream, at rest and with nothing counted yet."""
    running_upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    running_upstream.reset()
    return running_upstream


def model_rows(upstream_url: str, enough: Path) -> list[dict[str, object]]:
    faults = {"stalls": "fault-stall", "breaks": "fault-cut", "down": "fault-status:code=503"}
    return [
        {"name": "mock-gpt-model", "kind": "echo"},
        {"name": "storyteller", "kind": STORYTELLER},
        {"name": "endless-storyteller", "kind": STORYTELLER, "delay": 0.006, "until": str(enough)},
        *({"name": name, "kind": "openai", "base_url": upstream_url, "upstream_model": fault}
          for name, fault in faults.items()),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def models_file(running_upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps(model_rows(running_upstream.base_url, path.with_name("enough"))))
    return path


@pytest.fixture
def enough(models_file: Path) -> Path:
    """The file that brings `endless-storyteller` to the end of its story."""
    path = models_file.with_name("enough")
    path.unlink(missing_ok=True)
    return path


@pytest.fixture(scope="session")
def api(models_file: Path) -> Iterator[Nginx]:
    """The server with a model for every mood, behind nginx."""
    settings = {"MODELS_FILE": str(models_file), "DEFAULT_MODEL": "mock-gpt-model"}
    with LiveServer(settings) as server, nginx_in_front_of(server.url) as nginx:
        yield nginx


@pytest.fixture(scope="session")
def keyed(models_file: Path) -> Iterator[Nginx]:
    """The same for those who have a key."""
    with (
        LiveServer({"MODELS_FILE": str(models_file), "API_KEYS": "key-for-anna"}) as server,
        nginx_in_front_of(server.url) as nginx,
    ):
        yield nginx


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: `make pictures` keeps them in docs/images/, any other run with its own results."""
    return Path(os.environ.get("PICTURES") or tmp_path)
