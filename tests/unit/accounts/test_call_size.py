"""Estimates of the tokens that a call may use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.accounts.call_size import MEDIA_TOKENS, input_tokens_of, tokens_of_items

PIXELS = "A" * 400_000
WORDS = "word " * 80_000


def tokens_in(payload: dict[str, Any]) -> int:
    return input_tokens_of(json.dumps(payload).encode(), payload)


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}},
        {"type": "input_audio", "input_audio": {"data": PIXELS, "format": "wav"}},
        {"type": "input_file", "filename": "a.pdf", "file_data": PIXELS},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXELS}"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "tool_result", "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]},
    ],
    ids=[
        "openai", "anthropic", "audio", "file", "responses", "openai url", "anthropic url", "responses url", "file url",
        "file id", "chat file id", "result of a tool",
    ],
)  # fmt: skip
def test_an_image_counts_as_one_whatever_its_length(image: dict[str, Any]) -> None:
    assert MEDIA_TOKENS <= tokens_in({"messages": [{"role": "user", "content": [image]}]}) < MEDIA_TOKENS + 50


def test_a_generated_image_counts_as_one_in_the_input_alone() -> None:
    image = {"type": "image_generation_call", "result": PIXELS}
    assert MEDIA_TOKENS <= tokens_in({"input": [image]}) < MEDIA_TOKENS + 50
    assert tokens_in({"input": [{"role": "user", "content": [image]}]}) >= 100_000


def test_an_escaped_name_of_a_small_body_is_found() -> None:
    body = (
        rb'{"input": [{"role": "user", "content": [{"type": "input_im\u0061ge", "image_\u0075rl": "https://a.b/c"}]}]}'
    )
    assert input_tokens_of(body, json.loads(body)) >= MEDIA_TOKENS


def test_the_address_of_a_citation_is_no_image() -> None:
    annotations = [{"type": "url_citation", "url": "https://example.com/a", "title": "A"}] * 20
    text = {"type": "output_text", "text": "word", "annotations": annotations}
    assert tokens_in({"input": [{"role": "assistant", "content": [text]}]}) < MEDIA_TOKENS


@pytest.mark.parametrize(
    "part",
    [
        "data:" + "word " * 80_000,
        {"type": "text", "text": "data:" + "word " * 80_000},
        {"type": "base64", "text": "word " * 80_000},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 80_000}},
        [1, "word " * 80_000],
        "\u8a9e" * 133_334,
    ],
    ids=["data", "part", "base64", "document", "after a number", "not latin"],
)
def test_a_text_counts_by_its_length(part: Any) -> None:
    payload = {"messages": [{"role": "user", "content": part}]}
    assert input_tokens_of(json.dumps(payload).encode(), payload) >= 100_000


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {WORDS: {"type": "string"}}},
        {"properties": {f"name of property {number}": {} for number in range(20_000)}},
        {"enum": [10**9 + number / 2 for number in range(50_000)]},
        {"enum": [10**18 + number for number in range(25_000)]},
        {"enum": [None] * 100_000},
        {"format": "x", "data": WORDS},
        {"type": "base64", "data": WORDS},
        {"source": {"type": "base64", "data": WORDS}},
        {"type": "image_generation_call", "result": WORDS},
        {"type": "input_file", "file_data": WORDS, "image_url": {"url": "data:" + WORDS}},
    ],
    ids=["name", "names", "numbers", "large numbers", "nulls", "audio", "base64", "source", "image", "file"],
)
def test_a_tool_counts_by_its_length(parameters: dict[str, Any]) -> None:
    function = {"name": "f", "parameters": parameters}
    payload = {"messages": [], "tools": [{"type": "function", "function": function}]}
    assert tokens_in(payload) >= 100_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "name": "f", "input": {"type": "input_file", "file_data": WORDS}},
        {"type": "input_file", "file_data": "data:text/plain;base64," + WORDS},
        {"type": "text", "text": "hi", "data": WORDS, "format": "wav"},
    ],
    ids=["arguments", "file of text", "text"],
)
def test_a_part_that_only_looks_like_an_image_counts_by_its_length(part: dict[str, Any]) -> None:
    assert tokens_in({"messages": [{"role": "assistant", "content": [part]}]}) >= 100_000


def test_the_structure_of_messages_does_not_count() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "word " * 40}]}] * 500
    assert 25_000 <= tokens_in({"model": "m", "messages": messages, "temperature": 0.5}) <= 26_100


def test_token_ids_count_as_one_each() -> None:
    payload = {"prompt": [[7] * 10_000, [8] * 10_000]}
    assert input_tokens_of(b"", payload) == 20_000


def test_stored_items_count_by_what_the_model_gets() -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXELS}"}
    text = {"type": "input_text", "text": "word " * 800}
    message = {"id": "msg_" + "0" * 32, "type": "message", "status": "completed", "role": "user"}
    items = [{**message, "content": [text]}, {**message, "content": [image]}]
    assert MEDIA_TOKENS + 1000 <= tokens_of_items(items) < MEDIA_TOKENS + 1030
