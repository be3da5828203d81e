"""Recognition of an event stream by the first bytes of a response."""

from __future__ import annotations

import time

import pytest

from openai_compat.backends.parsing.answer_format import MAX_WHITE_SPACE_BYTES, detect_events
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT
from tests.support.scripted_response import ScriptedResponse


@pytest.mark.parametrize(
    ("body", "is_stream"),
    [
        (b"data: 1\n\n", True),
        (b"\n \r\n: ping\n\n", True),
        (b"\xef\xbb\xbf\n data: 1\n\n", True),
        (b'  {"data": 1}', False),
        (b"dat", False),
        (b"", False),
    ],
)
def test_the_first_bytes_tell_an_event_stream(body: bytes, is_stream: bool) -> None:
    pieces = [body[at : at + 1] for at in range(len(body))]
    for blocks in ([body], pieces, [HEARTBEAT, *pieces]):
        response, found = detect_events(ScriptedResponse(*blocks), is_streamed=True)
        assert found is is_stream
        assert response.read() == body


def test_white_space_is_limited() -> None:
    blocks = [b" "] * (MAX_WHITE_SPACE_BYTES + 1)
    assert detect_events(ScriptedResponse(*blocks[1:], b"data: 1\n\n"), is_streamed=True)[1]
    with pytest.raises(UpstreamInvalidResponseError, match="white space"):
        detect_events(ScriptedResponse(*blocks, b"data: 1\n\n"), is_streamed=True)


def test_white_space_is_not_read_again_with_each_block() -> None:
    started_at = time.process_time()
    detect_events(ScriptedResponse(*[b" "] * MAX_WHITE_SPACE_BYTES, b"data: 1\n\n"), is_streamed=True)
    assert time.process_time() - started_at < 0.5
