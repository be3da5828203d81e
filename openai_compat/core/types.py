"""The values that cross the layers: frozen, without behaviour of their own, free of HTTP and of any library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .cancellation import CancellationToken

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
JSONObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one call; cached tokens are part of the prompt's, reasoning tokens of the completion's."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat call as a backend sees it.

    `messages` are OpenAI's message objects, validated. `parameters` holds every other field that the client sent with
    a value other than null (`temperature`, `tools`, `n`, unknown ones, ...), except `model`, `stream` and
    `stream_options`, which belong to the service. `is_streamed` tells whether the client reads along: a backend that
    can stream should, one that cannot may yield its whole answer as one delta.
    """

    model: str
    messages: Sequence[JSONObject]
    parameters: JSONObject = field(default_factory=dict)
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: `id` and `name` come with the first piece of each `index` only."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of one token; `top` has the likeliest (token, logprob) pairs in falling order.

    `logprob` is None for the first token of an echoed prompt: nothing came before it.
    """

    token: str
    logprob: float | None
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """One piece of an answer. `index` is the choice it belongs to.

    The last delta of each choice carries its `finish_reason`; a choice without one was cut off. `usage` may come with
    any delta, counts the whole call, and the last one holds. `reasoning` is sent on as `reasoning_content`.
    `annotations` are OpenAI's own objects (`{"type": "url_citation", ...}`): what the text rests on, and where.
    """

    content: str | None = None
    index: int = 0
    finish_reason: FinishReason | None = None
    tool_calls: Sequence[ToolCallDelta] = ()
    refusal: str | None = None
    reasoning: str | None = None
    logprobs: Sequence[TokenLogprob] = ()
    usage: Usage | None = None
    annotations: Sequence[JSONObject] = ()


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One text completion call. `prompts` has one entry a prompt, each a text or a list of token ids."""

    model: str
    prompts: Sequence[str | Sequence[int]]
    parameters: JSONObject = field(default_factory=dict)
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """One piece of a completion; `index` counts choices prompt by prompt (`prompt * n + choice`)."""

    text: str = ""
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """One embeddings call. `inputs` has one entry a vector, each a text or a list of token ids."""

    model: str
    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    parameters: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` in the order of the inputs, each of the same length. Usage counts the inputs' tokens.

    `truncated` has the indexes of the inputs whose ends did not fit into the model's window.
    """

    vectors: Sequence[Sequence[float]]
    usage: Usage | None = None
    truncated: Sequence[int] = ()


def _no_header(_name: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a backend may know of the caller, besides the request itself.

    `headers` are those of the client's headers that may travel on (names in lower case), `authorization` its
    `Authorization` value where it may be shown to an upstream that has no key of its own, else None.
    `heartbeat_interval` is how long a stream may be quiet before it must yield `HEARTBEAT`; 0 means never. `caller` is
    the credential that the call came with, to tell callers apart and for nothing else; `conversation_id` what the
    header `X-Conversation-Id` names. `sent_header` looks up any header of the request, for a backend that is configured
    to know it; it is to travel nowhere else. `reply_headers` takes what the answer's headers are to say, until the
    first piece of the answer is there.
    """

    request_id: str
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = None
    heartbeat_interval: float = 0.0
    caller: str | None = field(default=None, repr=False)
    conversation_id: str | None = None
    sent_header: Callable[[str], str | None] = _no_header
    reply_headers: dict[str, str] = field(default_factory=dict)
