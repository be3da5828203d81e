"""The servers that the documentation's readers talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.snippet_runner import World
from tests.support.fake_chat_apis import FakeChatAPIs
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.recording_api import RecordingAPI


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with (
        LiveServer() as echo,
        MockUpstream() as upstream,
        RecordingAPI("It is sunny today.") as chat_api,
        FakeChatAPIs() as apis,
    ):
        yield World(echo, upstream, chat_api, apis)
