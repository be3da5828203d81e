"""Estimates of the tokens that a call may use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.accounts.call_size import MEDIA_TOKENS, input_tokens_of, tokens_of_items

PIXELS = "A" * 400_000


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}},
        {"type": "input_audio", "input_audio": {"data": PIXELS, "format": "wav"}},
        {"type": "input_file", "filename": "a.pdf", "file_data": PIXELS},
        {"type": "image_generation_call", "result": PIXELS},
    ],
    ids=["openai", "anthropic", "audio", "file", "generated"],
)
def test_an_image_counts_as_one_whatever_its_length(image: dict[str, Any]) -> None:
    payload = {"messages": [{"role": "user", "content": [image]}]}
    assert MEDIA_TOKENS <= input_tokens_of(json.dumps(payload).encode(), payload) < MEDIA_TOKENS + 50


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


def test_token_ids_count_as_one_each() -> None:
    payload = {"prompt": [[7] * 10_000, [8] * 10_000]}
    assert input_tokens_of(b"", payload) == 20_000


def test_stored_items_count_by_what_the_model_gets() -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXELS}"}
    text = {"type": "input_text", "text": "word " * 800}
    message = {"id": "msg_" + "0" * 32, "type": "message", "status": "completed", "role": "user"}
    items = [{**message, "content": [text]}, {**message, "content": [image]}]
    assert MEDIA_TOKENS + 1000 <= tokens_of_items(items) < MEDIA_TOKENS + 1030
