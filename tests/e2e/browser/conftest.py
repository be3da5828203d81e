"""The servers that browsers call, behind nginx with the configuration of `deploy/`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser.chat_example import running_site
from tests.e2e.browser.stored_conversations import StoredConversations
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

SLOW_STREAM = "tests.support.slow_stream_server:SlowStreamBackend"


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture
def upstream(running_upstream: MockUpstream) -> MockUpstream:
    """Return the idle mock upstream with reset counters."""
    running_upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    running_upstream.reset()
    return running_upstream


def model_entries(upstream_url: str, end_of_story: Path) -> list[dict[str, object]]:
    faults = {"stalls": "fault-stall", "breaks": "fault-cut", "down": "fault-status:code=503"}
    return [
        {"name": "mock-gpt-model", "kind": "echo"},
        {"name": "story", "kind": SLOW_STREAM},
        {"name": "endless-story", "kind": SLOW_STREAM, "delay": 0.006, "until": str(end_of_story)},
        *({"name": name, "kind": "openai", "base_url": upstream_url, "upstream_model": fault}
          for name, fault in faults.items()),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def models_file(running_upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps(model_entries(running_upstream.base_url, path.with_name("end-of-story"))))
    return path


@pytest.fixture
def end_of_story(models_file: Path) -> Path:
    """Return the file whose creation ends the answer of `endless-story`."""
    path = models_file.with_name("end-of-story")
    path.unlink(missing_ok=True)
    return path


@pytest.fixture(scope="session")
def api(models_file: Path) -> Iterator[Nginx]:
    """Yield a server with healthy and faulty models behind nginx."""
    settings = {"MODELS_FILE": str(models_file), "DEFAULT_MODEL": "mock-gpt-model"}
    with LiveServer(settings) as server, nginx_in_front_of(server.url) as nginx:
        yield nginx


@pytest.fixture(scope="session")
def keyed(models_file: Path) -> Iterator[Nginx]:
    """Yield such a server that requires an API key."""
    with (
        LiveServer({"MODELS_FILE": str(models_file), "API_KEYS": "key-for-anna,key-for-ben"}) as server,
        nginx_in_front_of(server.url) as nginx,
    ):
        yield nginx


@pytest.fixture
def stored(keyed: Nginx) -> StoredConversations:
    """Return the conversations of a key, of which there are none."""
    conversations = StoredConversations(keyed.url, "key-for-anna")
    conversations.clear()
    return conversations


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Yield the chat page of examples/nextjs-chat."""
    with running_site(tmp_path_factory.mktemp("next")) as nginx:
        yield nginx


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return the folder for screenshots, which is docs/images/ for `make pictures`."""
    return Path(os.environ.get("PICTURES") or tmp_path)
