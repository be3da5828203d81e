"""A live server in front of the mock upstream and its faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream


@pytest.fixture(scope="package")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="package")
def server(upstream: MockUpstream) -> Iterator[LiveServer]:
    settings = {
        "OPENAI_BASE_URL": upstream.base_url,
        "OPENAI_API_KEY": "sk-of-the-server",
        "SSE_KEEPALIVE_SECONDS": "0.2",
    }
    with LiveServer(settings) as live:
        yield live


@pytest.fixture(scope="package")
def server_without_comments(upstream: MockUpstream) -> Iterator[LiveServer]:
    """Return a server that writes nothing in an idle gap, so that no failed write reveals a client disconnect."""
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url, "SSE_KEEPALIVE_SECONDS": "3600"}) as live:
        yield live
