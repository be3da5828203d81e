"""A deterministic offline model that echoes the request, for client tests and first steps.

Chat answers with the last user message, or with the tool result that comes last. It calls one of the `tools` if
`tool_choice` demands it or the last user message names one, with arguments generated from the tool's schema. With
`response_format` it generates a structured output. Completions
answer with the prompt. With `echo` the prompt also precedes the answer and `suffix` follows it. Without `echo` the
suffix only counts as part of the prompt. Embeddings are hashed words. Tokens are those of `split_tokens`, and usage
counts them.
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
from openai_compat.backends.parameter_checks import (
    check_chat,
    check_completion,
    check_embeddings,
    check_roles,
    stops_of,
)
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

from .answers import EchoAnswer, answer_chat, answer_text, prompt_texts, token_logprobs
from .hash_embeddings import embed_text
from .limits import (
    CONTEXT_WINDOW,
    CooperativeTokenizer,
    answer_limit,
    check_echo,
    check_prompt,
    check_vectors,
    count_inputs,
    count_messages,
    oversized_by,
    yield_to_others,
)

COMPLETION_TOKENS: Final = 16
"""The default of `max_tokens` for completions (source: OpenAI's API reference)."""

MAX_DIMENSIONS: Final = 3072

DELTAS_PER_TURN: Final = 128
"""Deltas that are made before other calls get a turn. For most calls they take a fraction of a millisecond."""

DeltaT = TypeVar("DeltaT", ChatDelta, TextDelta)


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """Options of the echo model.

    `delay` is the pause in seconds before each token. Choices share it. `dimensions` is the default length of
    embeddings.
    """

    delay: float = 0.0
    dimensions: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.delay, bool) or not isinstance(self.delay, int | float) or not 0 <= self.delay < math.inf:
            raise ValueError("delay must be a number of seconds, 0 or more")
        if type(self.dimensions) is not int or not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"dimensions must be a whole number from 1 to {MAX_DIMENSIONS}")


class EchoBackend(Backend, SupportsChat, SupportsCompletions, SupportsEmbeddings):
    """Backend of the echo model. Equal requests get equal answers."""

    Options = EchoOptions
    options: EchoOptions
    judges_requests = True
    supported_chat_parameters: ClassVar[frozenset[str]] = CHAT_PARAMETERS - {
        "audio",
        "web_search_options",
        "logit_bias",
    }
    supported_completion_parameters: ClassVar[frozenset[str]] = COMPLETION_PARAMETERS - {"logit_bias"}

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Return one delta for each token and one for the finish reason. The choices of `n` alternate."""
        check_chat(request)
        check_roles(request.messages)
        parameters = request.parameters
        tokenizer = CooperativeTokenizer(context.cancellation)
        prompt_tokens = count_messages(prompt_texts(request.messages), len(request.messages), tokenizer)
        choices = parameters.get("n", 1)
        top = parameters.get("top_logprobs", 0) if parameters.get("logprobs") else None
        max_tokens = parameters.get("max_completion_tokens", parameters.get("max_tokens"))
        answer = answer_chat(request, answer_limit(max_tokens, choices, top or 0), tokenizer)
        usage = Usage(prompt_tokens, choices * len(answer.tokens))
        return self._pace(_chat_rounds(answer, choices, top, usage), context)

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        """Return deltas as `chat` does, prompt after prompt."""
        check_completion(request)
        parameters = request.parameters
        choices, top = parameters.get("n", 1), parameters.get("logprobs")
        limit = answer_limit(parameters.get("max_tokens", COMPLETION_TOKENS), choices * len(request.prompts), top or 0)
        prompts, suffix = _tokenize_prompts(request, limit, CooperativeTokenizer(context.cancellation))
        prompt_tokens = sum(len(prompt) + len(suffix) for prompt in prompts)
        stops = stops_of(parameters)
        answers = [answer_text("".join(prompt), prompt, stops, limit) for prompt in prompts]
        best_of = parameters.get("best_of", choices)
        usage = Usage(prompt_tokens, best_of * sum(len(answer.tokens) for answer in answers))
        if parameters.get("echo"):
            check_echo(prompt_tokens, choices, top or 0)
            answers = [
                replace(answer, tokens=[*prompt, *answer.tokens, *suffix])
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        return self._pace(_completion_rounds(answers, choices, top, usage), context)

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        """Return embeddings of hashed words, in 1 to 3072 dimensions."""
        check_embeddings(request, MAX_DIMENSIONS)
        dimensions = request.dimensions or self.options.dimensions
        check_vectors(len(request.inputs), dimensions)
        tokens = count_inputs(request.inputs, CooperativeTokenizer(context.cancellation))
        vectors = []
        for content in request.inputs:
            yield_to_others(context.cancellation)
            vectors.append(embed_text(content, dimensions))
        return Embeddings(vectors, Usage(tokens))

    def _pace(self, rounds: Iterator[list[DeltaT]], context: CallContext) -> Iterator[DeltaT | Heartbeat]:
        """Yield the deltas of each round after the delay, and give other calls a turn every `DELTAS_PER_TURN`.

        All waits go through the cancellation token of the call.
        """
        since_turn = 0
        for deltas in rounds:
            if self.options.delay and deltas[0].finish_reason is None:
                yield from self._wait_delay(context)
            since_turn += len(deltas)
            if since_turn >= DELTAS_PER_TURN:
                since_turn = 0
                yield_to_others(context.cancellation)
            context.cancellation.raise_if_cancelled()
            yield from deltas

    def _wait_delay(self, context: CallContext) -> Iterator[Heartbeat]:
        remaining = self.options.delay
        while 0 < context.heartbeat_interval < remaining:
            context.cancellation.wait(context.heartbeat_interval)
            remaining -= context.heartbeat_interval
            yield HEARTBEAT
        context.cancellation.wait(remaining)


def _chat_rounds(answer: EchoAnswer, choices: int, top: int | None, usage: Usage) -> Iterator[list[ChatDelta]]:
    """Yield rounds of one delta for each choice."""
    indexes = range(choices)
    if answer.call is not None:
        first = ToolCallDelta(0, id=answer.call.id, name=answer.call.name)
        yield [ChatDelta(index=index, tool_calls=(first,)) for index in indexes]
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
    """Yield rounds of one delta for each choice of a prompt, prompt after prompt."""
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
    """Return the tokens of each prompt, and of the suffix, which counts as part of each prompt.

    Raises:
        InvalidRequestError: together they exceed the context window.
    """
    suffix = request.parameters.get("suffix", "")
    check_prompt(oversized_by([*request.prompts, *[suffix] * len(request.prompts)], CONTEXT_WINDOW), limit)
    prompts, suffix_tokens = [tokenizer.tokens(prompt) for prompt in request.prompts], tokenizer.tokens(suffix)
    check_prompt(sum(len(prompt) + len(suffix_tokens) for prompt in prompts), limit)
    return prompts, suffix_tokens
