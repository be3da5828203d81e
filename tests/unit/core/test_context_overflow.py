"""Messages about prompts that are too long, as servers word them."""

from __future__ import annotations

import pytest

from openai_compat.core.context_overflow import is_overflow, to_overflow_message, to_room_message


@pytest.mark.parametrize(
    ("message", "code", "expected"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
            "context_length_exceeded", "prompt is too long: 9001 tokens > 8192 maximum",
        ),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 9100 tokens (9000 in the "
            "messages, 100 in the completion).", None, "prompt is too long: 9000 tokens > 4096 maximum",
        ),
        (
            "the request exceeds the available context size (4096 tokens), it has 9000 tokens",
            "exceed_context_size_error", "prompt is too long: 9000 tokens > 4096 maximum",
        ),
        ("prompt is too long: 9,001 tokens > 8,192 maximum", None, "prompt is too long: 9001 tokens > 8192 maximum"),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", None,
            "prompt is too long: 1200000 tokens > 1048576 maximum",
        ),
        ("Input is too long for requested model.", None, "prompt is too long for the context window of this model"),
        ("Too much.", "context_length_exceeded", "prompt is too long for the context window of this model"),
        ("Exceeds the context window of 4096.", None, "prompt is too long: it has more than 4096 tokens"),
    ],
)  # fmt: skip
def test_overflow_gets_the_wording_of_anthropic(message: str, code: str | None, expected: str) -> None:
    assert is_overflow(message, code)
    assert to_overflow_message(message) == expected


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("max_tokens is too large: 32000. This model supports at most 16384 completion tokens.", None),
        ("The context window of this session is unknown.", None),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 32010 tokens (10 in the "
            "messages, 32000 in the completion).", "context_length_exceeded",
        ),
        ("Rate limit reached: 10 requests.", "rate_limit_exceeded"),
    ],
)  # fmt: skip
def test_other_errors_are_no_overflow(message: str, code: str | None) -> None:
    assert not is_overflow(message, code)


ROOM = "input length and `max_tokens` exceed context limit: 1000 + 32000 > 8192"


@pytest.mark.parametrize(
    "message",
    [
        f"{ROOM}, decrease input length or `max_tokens` and try again",
        "This model's maximum context length is 8192 tokens. However, you requested 33000 tokens (1000 in the "
        "messages, 32000 in the completion). Please reduce the length of the messages or completion.",
        "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 8192 "
        "tokens and your request has 1000 input tokens (32000 > 8192 - 1000).",
    ],
    ids=["anthropic", "openai", "vllm"],
)
def test_an_answer_without_room_gets_the_wording_after_which_claude_code_lowers_it(message: str) -> None:
    assert not is_overflow(message, "context_length_exceeded")
    assert (to_room_message(message) or "").startswith(ROOM)
    longer = message.replace("1000", "8200")
    assert is_overflow(longer)
    assert to_overflow_message(longer) == "prompt is too long: 8200 tokens > 8192 maximum"


def test_other_messages_say_nothing_of_the_room_for_an_answer() -> None:
    assert to_room_message("max_tokens is too large: 32000. This model supports at most 16384 tokens.") is None
