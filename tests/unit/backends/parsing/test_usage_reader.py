"""Token counts of Anthropic's messages."""

from __future__ import annotations

from openai_compat.backends.parsing.anthropic_messages import UsageReader
from openai_compat.core.types import MAX_TOKENS, Usage


def test_counts_that_no_call_can_have_are_limited_and_negative_ones_ignored() -> None:
    reader = UsageReader()
    reader.read({"input_tokens": 10**400, "output_tokens": -7, "cache_read_input_tokens": "3"})
    assert reader.to_usage() == Usage(MAX_TOKENS)
