"""The servers that the snippets of the documentation call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.snippet_runner import DocsEnvironment
from tests.support.fake_chat_apis import FakeChatAPIs
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.recording_api import RecordingAPI


@pytest.fixture(scope="session")
def docs() -> Iterator[DocsEnvironment]:
    with (
        LiveServer() as echo,
        MockUpstream() as upstream,
        RecordingAPI("It is sunny today.") as chat_api,
        FakeChatAPIs() as apis,
    ):
        yield DocsEnvironment(echo, upstream, chat_api, apis)
