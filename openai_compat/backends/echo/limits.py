"""What the echo model takes and gives at most, as any model does, and how its work leaves time to other calls.

Every call of a worker shares one process, so nothing here goes on for more than a few milliseconds in one go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.tokens import MAX_TOKEN_CHARS, split_tokens

CONTEXT_WINDOW: Final = 128_000
"""Tokens of all messages, or of all prompts with their suffixes; this and the next are gpt-4o's (source: OpenAI's list
of models)."""
MAX_ANSWER_TOKENS: Final = 16_384
"""Tokens of one choice; what is longer ends with `length`."""
MAX_TOTAL_TOKENS: Final = 65_536
"""Tokens of all choices together, an alternative of `top_logprobs` counted as one: four of the longest answers. Their
log probabilities are written as JSON in one go, and this many take 0.1 s."""
MAX_INPUT_CHARS: Final = 8_192
"""Tokens of one input for an embedding, and of all of them; both are OpenAI's limits (source: its API reference)."""
MAX_INPUT_TOKENS: Final = 300_000

ESTIMATED_CHARACTERS: Final = 4
"""Characters of a token, in the message about a text that is too long to be counted (OpenAI's rule of thumb)."""
CHUNK_CHARS: Final = 8_192
"""Characters that are cut into tokens in one go: about a millisecond's work."""
YIELD_SLEEP: Final = 1e-9
"""Seconds. Not 0: asked for that, gevent lets other greenlets go on, but looks at the sockets every 50th time only."""


class CooperativeTokenizer:
    """`split_tokens` in slices, with time for other calls in between. One for each call."""

    def __init__(self, cancellation: CancellationToken) -> None:
        self._cancellation = cancellation
        self._characters = 0

    def slices(self, text: str) -> Iterator[list[str]]:
        """The tokens of a text of any length, some thousand at a time."""
        start = 0
        while len(text) - start > CHUNK_CHARS:
            tokens = _settled(split_tokens(text[start : start + CHUNK_CHARS]))
            yield tokens
            length = sum(map(len, tokens))
            self._note(length)
            start += length
        yield split_tokens(text[start:])
        self._note(len(text) - start)

    def _note(self, characters: int) -> None:
        self._characters += characters
        if self._characters > CHUNK_CHARS // 2:
            self._characters = 0
            yield_to_others(self._cancellation)

    def tokens(self, prompt: str | Sequence[int]) -> list[str]:
        """All tokens; ids have no text, so that they are shown as they are: `<12>`, `<34>`."""
        if not isinstance(prompt, str):
            return [f"<{token}>" for token in prompt]
        return [token for tokens in self.slices(prompt) for token in tokens]

    def first(self, text: str, most: int) -> list[str]:
        """The first `most` tokens; the rest of the text is not looked at."""
        return list(islice((token for tokens in self.slices(text) for token in tokens), most))

    def count(self, prompt: str | Sequence[int]) -> int:
        return sum(map(len, self.slices(prompt))) if isinstance(prompt, str) else len(prompt)


def yield_to_others(cancellation: CancellationToken) -> None:
    """Lets every other call of this process go on for a turn.

    Raises:
        CallCancelledError
    """
    time.sleep(YIELD_SLEEP)
    cancellation.raise_if_cancelled()


def _settled(tokens: list[str]) -> list[str]:
    """The tokens of a slice that do not depend on what follows it: without the last, and white space before that."""
    end = len(tokens) - 1
    while end > 0 and tokens[end - 1].isspace():
        end -= 1
    return tokens[:end] or tokens


def oversized_by(prompts: Sequence[str | Sequence[int]], window: int) -> int:
    """About how many tokens these are, where their length alone shows that they are more than `window`; else 0."""
    characters = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    ids = sum(len(prompt) for prompt in prompts if not isinstance(prompt, str))
    return characters // ESTIMATED_CHARACTERS + ids if characters // MAX_TOKEN_CHARS + ids > window else 0


def count_messages(texts: Sequence[str], messages: int, tokenizer: CooperativeTokenizer) -> int:
    """The tokens of a conversation's texts.

    Raises:
        PayloadError: they are more than the context window, or so many messages that no window would hold them.
    """
    tokens = oversized_by(texts, CONTEXT_WINDOW) or messages
    if tokens <= CONTEXT_WINDOW:
        tokens = sum(map(tokenizer.count, texts))
    if tokens > CONTEXT_WINDOW:
        raise _exceeded(
            f"This model's maximum context length is {CONTEXT_WINDOW} tokens. However, your messages resulted in "
            f"{tokens} tokens. Please reduce the length of the messages.",
            "messages",
        )
    return tokens


def check_prompt(tokens: int, answer: int, param: str = "prompt", window: int = CONTEXT_WINDOW) -> None:
    """Raises PayloadError where `tokens` are more than the window; `answer` is what the caller asked for besides."""
    if tokens > window:
        raise _exceeded(
            f"This model's maximum context length is {window} tokens, however you requested {tokens + answer} tokens "
            f"({tokens} in your prompt; {answer} for the completion). Please reduce your prompt; or completion length.",
            param,
        )


def count_inputs(inputs: Sequence[str | Sequence[int]], tokenizer: CooperativeTokenizer) -> int:
    """The tokens of the inputs for embeddings.

    Raises:
        PayloadError: one of them, or all of them together, are too long.
    """
    total = oversized_by(inputs, MAX_INPUT_TOKENS)
    for content in () if total else inputs:
        tokens = oversized_by([content], MAX_INPUT_CHARS) or tokenizer.count(content)
        check_prompt(tokens, 0, "input", MAX_INPUT_CHARS)
        total += tokens
    if total > MAX_INPUT_TOKENS:
        message = f"Requested {total} tokens, max {MAX_INPUT_TOKENS} tokens per request"
        raise InvalidRequestError(message, param="input", code="max_tokens_per_request")
    return total


def answer_limit(asked: int | None, choices: int, alternatives: int) -> int:
    """The most tokens that each choice may have.

    Raises:
        PayloadError: there are so many choices that not one token is left for each.
    """
    share = MAX_TOTAL_TOKENS // (choices * (1 + alternatives))
    if not share:
        raise InvalidRequestError(f"Invalid 'n': all choices together may have {MAX_TOTAL_TOKENS} tokens.", param="n")
    return min(MAX_ANSWER_TOKENS, share) if asked is None else min(MAX_ANSWER_TOKENS, share, asked)


def check_echo(tokens: int, choices: int, alternatives: int) -> None:
    """Raises PayloadError where prompts of so many tokens cannot be repeated in each of their choices."""
    repeated = tokens * choices * (1 + alternatives)
    if repeated > MAX_TOTAL_TOKENS:
        raise _exceeded(
            f"With 'echo' and its 'logprobs' the prompt would make {repeated} tokens, and all choices together may "
            f"have {MAX_TOTAL_TOKENS}. Please reduce the length of the prompt, 'n' or 'logprobs'.",
            "prompt",
        )


def _exceeded(message: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="context_length_exceeded")
