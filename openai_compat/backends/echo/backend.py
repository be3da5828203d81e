"""The echo model: deterministic, offline, and in OpenAI's shapes, for the tests of clients and for a first look.

Chat answers what the user said last, or the result of a tool that came last. With `tools` it calls one, with arguments
made up from the tool's schema; with `response_format` it makes up a structured answer. Completions answer the prompt
itself: `echo` puts the prompt before the answer and `suffix` after it, without `echo` the suffix only counts as part
of the prompt. Embeddings are hashed words. Tokens are the pieces of `split_tokens`; usage counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, TypeVar

from openai_compat.backends.base import (
    CHAT_PARAMETERS,
    COMPLETION_PARAMETERS,
    Backend,
    SupportsChat,
    SupportsCompletions,
    SupportsEmbeddings,
)
from openai_compat.backends.parameter_checks import check_chat, check_completion, check_embeddings, stops_of
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbeddingsRequest,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

from .answers import EchoAnswer, answer_chat, answer_with, prompt_texts, token_logprobs
from .hash_embeddings import embed_text
from .limits import (
    CONTEXT_WINDOW,
    CooperativeTokenizer,
    answer_limit,
    check_echo,
    check_prompt,
    count_inputs,
    count_messages,
    oversized_by,
    yield_to_others,
)

COMPLETION_TOKENS: Final = 16
"""What a completion may have when `max_tokens` is not given (source: OpenAI's API reference)."""

MAX_DIMENSIONS: Final = 3072

DELTAS_A_TURN: Final = 128
"""So many deltas are made before other calls get their turn: a fraction of a millisecond's work for most."""

DeltaT = TypeVar("DeltaT", ChatDelta, TextDelta)


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """`delay` is the pause before each token, in seconds, choices side by side; `dimensions` the embeddings' length
    where a request names none."""

    delay: float = 0.0
    dimensions: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.delay, bool) or not isinstance(self.delay, int | float) or not 0 <= self.delay < math.inf:
            raise ValueError("delay must be a number of seconds, 0 or more")
        if type(self.dimensions) is not int or not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"dimensions must be a whole number from 1 to {MAX_DIMENSIONS}")


class EchoBackend(Backend, SupportsChat, SupportsCompletions, SupportsEmbeddings):
    """Answers with what it was asked; the module's docstring says how. Equal requests get equal answers."""

    Options = EchoOptions
    options: EchoOptions
    supported_chat_parameters: ClassVar[frozenset[str]] = CHAT_PARAMETERS - {
        "audio",
        "web_search_options",
        "logit_bias",
    }
    supported_completion_parameters: ClassVar[frozenset[str]] = COMPLETION_PARAMETERS - {"logit_bias"}

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """One delta for each token, then one with the finish reason; the choices of `n` take turns."""
        check_chat(request)
        parameters = request.parameters
        tokenizer = CooperativeTokenizer(context.cancellation)
        prompt_tokens = count_messages(prompt_texts(request.messages), len(request.messages), tokenizer)
        choices = parameters.get("n", 1)
        top = parameters.get("top_logprobs", 0) if parameters.get("logprobs") else None
        asked = parameters.get("max_completion_tokens", parameters.get("max_tokens"))
        answer = answer_chat(request, answer_limit(asked, choices, top or 0), tokenizer)
        usage = Usage(prompt_tokens, choices * len(answer.tokens))
        return self._paced(_chat_rounds(answer, choices, top, usage), context)

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        """As `chat`, prompt after prompt."""
        check_completion(request)
        parameters = request.parameters
        choices, top = parameters.get("n", 1), parameters.get("logprobs")
        limit = answer_limit(parameters.get("max_tokens", COMPLETION_TOKENS), choices * len(request.prompts), top or 0)
        prompts, suffix = _tokenize_prompts(request, limit, CooperativeTokenizer(context.cancellation))
        prompt_tokens = sum(len(prompt) + len(suffix) for prompt in prompts)
        stops = stops_of(parameters)
        answers = [answer_with("".join(prompt), prompt, stops, limit) for prompt in prompts]
        best_of = parameters.get("best_of", choices)
        usage = Usage(prompt_tokens, best_of * sum(len(answer.tokens) for answer in answers))
        if parameters.get("echo"):
            check_echo(prompt_tokens, choices, top or 0)
            answers = [
                replace(answer, tokens=[*prompt, *answer.tokens, *suffix])
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        return self._paced(_completion_rounds(answers, choices, top, usage), context)

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        """Hashed words (`hashed_embeddings`), in 1 to 3072 dimensions."""
        check_embeddings(request, MAX_DIMENSIONS)
        dimensions = request.dimensions or self.options.dimensions
        tokens = count_inputs(request.inputs, CooperativeTokenizer(context.cancellation))
        vectors = []
        for content in request.inputs:
            yield_to_others(context.cancellation)
            vectors.append(embed_text(content, dimensions))
        return Embeddings(vectors, Usage(tokens))

    def _paced(self, rounds: Iterator[list[DeltaT]], context: CallContext) -> Iterator[DeltaT | Heartbeat]:
        """The rounds' deltas, each round of tokens after the delay, with turns for other calls in between."""
        made = 0
        for deltas in rounds:
            if self.options.delay and deltas[0].finish_reason is None:
                yield from self._pause(context)
            made += len(deltas)
            if made >= DELTAS_A_TURN:
                made = 0
                yield_to_others(context.cancellation)
            context.cancellation.raise_if_cancelled()
            yield from deltas

    def _pause(self, context: CallContext) -> Iterator[Heartbeat]:
        remaining = self.options.delay
        while 0 < context.heartbeat_interval < remaining:
            context.cancellation.wait(context.heartbeat_interval)
            remaining -= context.heartbeat_interval
            yield HEARTBEAT
        context.cancellation.wait(remaining)


def _chat_rounds(answer: EchoAnswer, choices: int, top: int | None, usage: Usage) -> Iterator[list[ChatDelta]]:
    """Rounds of one delta for each choice."""
    indexes = range(choices)
    if answer.call is not None:
        head = ToolCallDelta(0, id=answer.call.id, name=answer.call.name)
        yield [ChatDelta(index=index, tool_calls=(head,)) for index in indexes]
        for token in answer.tokens:
            yield [ChatDelta(index=index, tool_calls=(ToolCallDelta(0, token),)) for index in indexes]
    else:
        for token in answer.tokens:
            logprobs = _logprobs(token, top)
            yield [ChatDelta(token, index, logprobs=logprobs) for index in indexes]
    yield [
        ChatDelta(index=index, finish_reason=answer.finish_reason, usage=usage if index == choices - 1 else None)
        for index in indexes
    ]


def _completion_rounds(
    answers: Sequence[EchoAnswer], choices: int, top: int | None, usage: Usage
) -> Iterator[list[TextDelta]]:
    """Rounds of one delta for each choice of a prompt; the choices of the first prompt come first."""
    last = len(answers) * choices - 1
    for position, answer in enumerate(answers):
        indexes = range(position * choices, (position + 1) * choices)
        for token in answer.tokens:
            logprobs = _logprobs(token, top)
            yield [TextDelta(token, index, logprobs=logprobs) for index in indexes]
        yield [
            TextDelta(index=index, finish_reason=answer.finish_reason, usage=usage if index == last else None)
            for index in indexes
        ]


def _logprobs(token: str, top: int | None) -> Sequence[TokenLogprob]:
    return () if top is None else (token_logprobs(token, top),)


def _tokenize_prompts(
    request: CompletionRequest, limit: int, tokenizer: CooperativeTokenizer
) -> tuple[list[list[str]], list[str]]:
    """The tokens of each prompt, and of the suffix, which counts as part of each.

    Raises:
        PayloadError: together they are more than the context window.
    """
    suffix = request.parameters.get("suffix", "")
    check_prompt(oversized_by([*request.prompts, *[suffix] * len(request.prompts)], CONTEXT_WINDOW), limit)
    prompts, suffix_tokens = [tokenizer.tokens(prompt) for prompt in request.prompts], tokenizer.tokens(suffix)
    check_prompt(sum(len(prompt) + len(suffix_tokens) for prompt in prompts), limit)
    return prompts, suffix_tokens
