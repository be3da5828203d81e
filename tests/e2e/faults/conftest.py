"""A live gunicorn in front of an upstream that misbehaves on demand."""

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
