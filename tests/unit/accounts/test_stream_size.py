"""Estimates of the tokens of streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.accounts.stream_size import StreamSize


def event(value: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def chunk(text: str) -> bytes:
    return event({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]})


def size_of(*blocks: bytes, has_deltas: bool = False) -> int:
    size = StreamSize(has_deltas=has_deltas)
    for block in blocks:
        size.add(block)
    return size.tokens


def test_an_event_of_one_token_counts_as_one() -> None:
    assert size_of(*[chunk(" word") for _ in range(50)]) == 50


@pytest.mark.parametrize("first", [[], [chunk("")], [chunk(" a")]], ids=["none", "empty", "short"])
def test_many_tokens_in_one_event_count_by_their_length(first: list[bytes]) -> None:
    assert 300 <= size_of(*first, *[chunk("word " * 80) for _ in range(3)]) < 310


def test_many_events_in_one_block_count_each() -> None:
    assert size_of(b"".join(chunk(" word") for _ in range(50))) == 50


def test_long_deltas_count_by_their_length_after_a_block_of_several_events() -> None:
    start = event({"type": "message_start", "message": {"id": "m" * 400, "content": []}}, "message_start")
    deltas = [event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word " * 90}})] * 100
    assert size_of(start + deltas[0], *deltas[1:]) >= 11_000


@pytest.mark.parametrize("key", ["text", "thinking", "partial_json"])
def test_deltas_of_messages(key: str) -> None:
    delta = event({"type": "content_block_delta", "delta": {"type": "x", key: 'say "a" ' * 50}}, "content_block_delta")
    assert size_of(delta) >= 100


def test_what_a_response_repeats_does_not_count() -> None:
    created = event({"type": "response.created", "response": {"instructions": "be kind " * 500}}, "response.created")
    delta = event({"type": "response.output_text.delta", "delta": "word " * 80}, "response.output_text.delta")
    done = event({"type": "response.output_text.done", "text": "word " * 80}, "response.output_text.done")
    assert 100 <= size_of(created, delta, done, has_deltas=True) <= 103


def test_plain_text_counts_by_its_length() -> None:
    assert size_of(b"word " * 80) == 100
