"""The servers that the documentation's readers talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.reader import World
from tests.fakes.live_server import LiveServer
from tests.fakes.mock_upstream import MockUpstream
from tests.fakes.recording_api import RecordingAPI
from tests.fakes.shaped_apis import ShapedAPIs


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with (
        LiveServer() as echo,
        MockUpstream() as upstream,
        RecordingAPI("It is sunny today.") as chat_api,
        ShapedAPIs() as apis,
    ):
        yield World(echo, upstream, chat_api, apis)
