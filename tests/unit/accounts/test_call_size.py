"""Estimates of the tokens that a call may use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.accounts.call_size import MEDIA_TOKENS, input_tokens_of

PIXELS = "A" * 400_000


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}},
    ],
    ids=["openai", "anthropic"],
)
def test_an_image_counts_as_one_whatever_its_length(image: dict[str, Any]) -> None:
    payload = {"messages": [{"role": "user", "content": [image]}]}
    assert MEDIA_TOKENS <= input_tokens_of(json.dumps(payload).encode(), payload) < MEDIA_TOKENS + 50
