"""The content of calls on spans, in the protocols of the server."""

from __future__ import annotations

import json

import pytest

from openai_compat.core.trace import Trace
from openai_compat.telemetry.content import CUT, MAX_CHARS, answer_text, content_attributes


def _events(*events: dict[str, object]) -> bytes:
    return (
        b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"choices": [{"message": {"role": "assistant", "content": "Paris"}}]}).encode(),
        json.dumps({"choices": [{"text": "Paris"}]}).encode(),
        json.dumps({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Paris"}]}]}).encode(),
        json.dumps({"content": [{"type": "text", "text": "Paris"}]}).encode(),
        _events({"choices": [{"delta": {"content": "Pa"}}]}, {"choices": [{"delta": {"content": "ris"}}]}),
        _events({"choices": [{"text": "Pa"}]}, {"choices": [{"text": "ris"}]}),
        _events(
            {"type": "response.output_text.delta", "delta": "Pa"},
            {"type": "response.output_text.delta", "delta": "ris"},
            {"type": "response.output_text.done", "text": "Paris"},
        ),
        _events(
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Pa"}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ris"}},
        ),
        _events({"choices": [{"delta": {"content": "Paris"}}]}) + b'data: {"choices": [{"del',
    ],
)
def test_the_text_of_an_answer(body: bytes) -> None:
    assert answer_text(body) == "Paris"


def test_messages_have_their_roles_and_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]
    attributes = content_attributes(Trace(1, 2, None, 3, is_sampled=True, payload={"messages": messages}))
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What is this?"}, {"type": "image_url"}]},
    ]
    assert "gen_ai.output.messages" not in attributes


def test_a_long_conversation_is_cut_and_says_so() -> None:
    messages = [{"role": "user", "content": "x" * 1000}] * 1000
    attributes = content_attributes(Trace(1, 2, None, 3, is_sampled=True, payload={"messages": messages}))
    text = str(attributes["gen_ai.input.messages"])
    assert text.endswith(CUT)
    assert len(text) == MAX_CHARS + len(CUT)
