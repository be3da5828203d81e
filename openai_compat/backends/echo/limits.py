"""Token limits of the echo model, and cooperative tokenization.

All calls of a worker share one process, so no step here may take more than a few milliseconds without yielding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.tokens import MAX_TOKEN_CHARS, split_tokens
from openai_compat.core.turns import give_turn

CONTEXT_WINDOW: Final = 128_000
"""Tokens of all messages, or of all prompts with their suffixes.

This limit and the next are those of gpt-4o (source: OpenAI's list of models).
"""
MAX_ANSWER_TOKENS: Final = 16_384
"""Tokens of one choice. A longer answer ends with the finish reason `length`."""
MAX_TOTAL_TOKENS: Final = 65_536
"""Tokens of all choices together, four times the longest answer."""
MAX_TOTAL_LOGPROBS: Final = 16_384
"""Tokens of all choices together if they have alternatives (`top_logprobs`), each of which counts as a token.

One takes 1 kB until the answer has been written as JSON, which is done without yielding. This many take 25 ms.
"""
MAX_INPUT_TOKENS: Final = 8_192
"""Tokens of one input for an embedding (source: OpenAI's API reference)."""
MAX_TOTAL_INPUT_TOKENS: Final = 300_000
"""Tokens of all inputs of one embeddings call (source: OpenAI's API reference)."""
MAX_TOTAL_NUMBERS: Final = 2048 * 1536
"""Numbers of all embeddings of one call. Those of 2,048 inputs at the dimensions of text-embedding-3-small fit.

They take 25 MB as Python lists and 13 MB as JSON.
"""

ESTIMATED_CHARS_PER_TOKEN: Final = 4
"""OpenAI's rule of thumb, used in the error for a text that is too long to be counted."""
CHUNK_CHARS: Final = 8_192
"""Characters that are tokenized without yielding, which takes about a millisecond."""


class CooperativeTokenizer:
    """A tokenizer that gives other calls a turn between chunks of a text. Each call has its own."""

    def __init__(self, cancellation: CancellationToken) -> None:
        self._cancellation = cancellation
        self._chars_since_yield = 0

    def chunks(self, text: str) -> Iterator[list[str]]:
        """Yield the tokens of a text of any length, some thousand at a time."""
        start = 0
        while len(text) - start > CHUNK_CHARS:
            tokens = _complete_tokens(split_tokens(text[start : start + CHUNK_CHARS]))
            yield tokens
            length = sum(map(len, tokens))
            self._count_chars(length)
            start += length
        yield split_tokens(text[start:])
        self._count_chars(len(text) - start)

    def _count_chars(self, chars: int) -> None:
        self._chars_since_yield += chars
        if self._chars_since_yield > CHUNK_CHARS // 2:
            self._chars_since_yield = 0
            yield_to_others(self._cancellation)

    def tokens(self, prompt: str | Sequence[int]) -> list[str]:
        """Return all tokens. Token ids have no text, so they are written as `<12>`, `<34>`."""
        if not isinstance(prompt, str):
            return [f"<{token}>" for token in prompt]
        return [token for tokens in self.chunks(prompt) for token in tokens]

    def first(self, text: str, limit: int) -> list[str]:
        """Return the first `limit` tokens. The rest of the text is not tokenized."""
        return list(islice((token for tokens in self.chunks(text) for token in tokens), limit))

    def count(self, prompt: str | Sequence[int]) -> int:
        return sum(map(len, self.chunks(prompt))) if isinstance(prompt, str) else len(prompt)


def yield_to_others(cancellation: CancellationToken) -> None:
    """Give every other call of this process a turn.

    Raises:
        CallCancelledError: the client disconnected.
    """
    give_turn()
    cancellation.raise_if_cancelled()


def _complete_tokens(tokens: list[str]) -> list[str]:
    """Return the tokens of a chunk that do not depend on the next chunk.

    The last token and the white space before it do, so they are left out.
    """
    end = len(tokens) - 1
    while end > 0 and tokens[end - 1].isspace():
        end -= 1
    return tokens[:end] or tokens


def oversized_by(prompts: Sequence[str | Sequence[int]], window: int) -> int:
    """Return the estimated number of tokens if the length alone shows that it exceeds `window`, else 0."""
    chars = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    ids = sum(len(prompt) for prompt in prompts if not isinstance(prompt, str))
    return chars // ESTIMATED_CHARS_PER_TOKEN + ids if chars // MAX_TOKEN_CHARS + ids > window else 0


def count_messages(texts: Sequence[str], messages: int, tokenizer: CooperativeTokenizer) -> int:
    """Return the number of tokens of a conversation's texts.

    Raises:
        InvalidRequestError: the tokens or the messages are more than the context window has tokens.
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
    """Raise InvalidRequestError if `tokens` exceed the window. `answer` is the number of requested answer tokens."""
    if tokens > window:
        raise _exceeded(
            f"This model's maximum context length is {window} tokens, however you requested {tokens + answer} tokens "
            f"({tokens} in your prompt; {answer} for the completion). Please reduce your prompt; or completion length.",
            param,
        )


def count_inputs(inputs: Sequence[str | Sequence[int]], tokenizer: CooperativeTokenizer) -> int:
    """Return the number of tokens of all inputs for embeddings.

    Raises:
        InvalidRequestError: one input is too long, or all of them together are.
    """
    total = oversized_by(inputs, MAX_TOTAL_INPUT_TOKENS)
    for content in () if total else inputs:
        tokens = oversized_by([content], MAX_INPUT_TOKENS) or tokenizer.count(content)
        check_prompt(tokens, 0, "input", MAX_INPUT_TOKENS)
        total += tokens
    if total > MAX_TOTAL_INPUT_TOKENS:
        message = f"Requested {total} tokens, max {MAX_TOTAL_INPUT_TOKENS} tokens per request"
        raise InvalidRequestError(message, param="input", code="max_tokens_per_request")
    return total


def check_vectors(inputs: int, dimensions: int) -> None:
    """Raise InvalidRequestError if the embeddings of all inputs together are too large."""
    if inputs * dimensions > MAX_TOTAL_NUMBERS:
        message = (
            f"Invalid 'input': {inputs} embeddings of {dimensions} dimensions are too large for one request. Expected "
            f"at most {MAX_TOTAL_NUMBERS // dimensions} inputs."
        )
        raise InvalidRequestError(message, param="input", code="array_above_max_length")


def answer_limit(max_tokens: int | None, choices: int, alternatives: int) -> int:
    """Return the maximum number of tokens of each choice.

    Raises:
        InvalidRequestError: there are more choices than the limit of all tokens together allows.
    """
    total = _total_limit(alternatives)
    share = total // (choices * (1 + alternatives))
    if not share:
        raise InvalidRequestError(
            f"Invalid 'n': all choices together may have {total} tokens and alternatives.", param="n"
        )
    return min(MAX_ANSWER_TOKENS, share) if max_tokens is None else min(MAX_ANSWER_TOKENS, share, max_tokens)


def check_echo(tokens: int, choices: int, alternatives: int) -> None:
    """Raise InvalidRequestError if prompts of `tokens` tokens are too long to be repeated in each choice."""
    repeated = tokens * choices * (1 + alternatives)
    total = _total_limit(alternatives)
    if repeated > total:
        raise _exceeded(
            f"With 'echo' and its 'logprobs' the prompt would make {repeated} tokens, and all choices together may "
            f"have {total}. Please reduce the length of the prompt, 'n' or 'logprobs'.",
            "prompt",
        )


def _total_limit(alternatives: int) -> int:
    return MAX_TOTAL_LOGPROBS if alternatives else MAX_TOTAL_TOKENS


def _exceeded(message: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="context_length_exceeded")
