"""Messages of Anthropic's API as deltas of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.backends.parsing.anthropic_messages import MessageParser

TEXT = {"type": "text", "text": "Hi"}
CALL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("content", "reason", "expected"),
    [
        ([TEXT], "end_turn", "stop"),
        ([CALL], "tool_use", "tool_calls"),
        ([CALL], "end_turn", "tool_calls"),
        ([TEXT], "tool_use", "stop"),  # no client is to wait for a call
        ([CALL], "max_tokens", "length"),
        ([TEXT], "pause_turn", "length"),
        ([TEXT], "brand_new", "stop"),
    ],
)
def test_the_reason_of_the_end(content: list[dict[str, Any]], reason: str, expected: str) -> None:
    deltas = list(MessageParser().read_message({"content": content, "stop_reason": reason}))
    assert deltas[-1].finish_reason == expected
