"""Value types that cross the layers.

They depend on no library and know nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from .cancellation import CancellationToken
from .observation import AttemptRecord
from .timeouts import Timeouts
from .trace import Trace

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
JSONObject = Mapping[str, Any]
JSON = dict[str, Any]
"""A JSON object that its holder may change."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one call.

    `prompt_tokens` includes the tokens that were read from the prompt cache (`cached_tokens`) and those that were
    written to it (`cache_write_tokens`). `completion_tokens` includes the reasoning tokens.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


MAX_TOKENS: Final = 10**12
"""Largest number of tokens of a call. The database and floating-point numbers can add it up."""


def to_token_count(value: object) -> int | None:
    """Return a number of tokens of an upstream, `MAX_TOKENS` for a larger one, and None for anything else."""
    return min(value, MAX_TOKENS) if isinstance(value, int) and value >= 0 else None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat call as a backend receives it.

    `messages` are OpenAI's message objects, validated. `parameters` holds every other field that the client sent with
    a value other than null (`temperature`, `tools`, `n`, unknown ones, ...), except `model`, `stream` and
    `stream_options`, which the service handles. `is_streamed` is True if the client requested a stream. A backend that
    cannot stream may yield its complete answer as one delta.
    """

    model: str
    messages: Sequence[JSONObject]
    parameters: JSONObject = field(default_factory=dict)
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Delta of a tool call. Only the first one of each `index` has `id` and `name`.

    All deltas of a call have the same `type`. The `arguments` of a custom tool are its input, which is any text.
    """

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    type: Literal["function", "custom"] = "function"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of one token.

    `top` has the likeliest (token, logprob) pairs, the likeliest first. `logprob` is None for the first token of an
    echoed prompt, which no token precedes.
    """

    token: str
    logprob: float | None
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """Delta of the answer's choice number `index`.

    The last delta of each choice has its `finish_reason`. A choice without one was truncated. Any delta may have
    `usage`, which counts the complete call, and the last one applies. Clients receive `reasoning` as
    `reasoning_content`. `annotations` are OpenAI's objects for citations (`{"type": "url_citation", ...}`), and `audio`
    is its object for speech or a part of it (`{"id", "data", "transcript", "expires_at"}`). `reasoning_details` are
    what the model needs back to go on reasoning, in OpenRouter's form (`{"type": "reasoning.text", "text",
    "signature"}`, `{"type": "reasoning.encrypted", "data"}`). `stop_sequence` is the one that ended the answer.
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
    audio: JSONObject | None = None
    reasoning_details: Sequence[JSONObject] = ()
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One text completion call.

    Each prompt is a text or a list of token ids.
    """

    model: str
    prompts: Sequence[str | Sequence[int]]
    parameters: JSONObject = field(default_factory=dict)
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Delta of a text completion. `index` counts the choices of all prompts (`prompt * n + choice`)."""

    text: str = ""
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: Sequence[TokenLogprob] = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """One embeddings call.

    Each input is a text or a list of token ids, and results in one vector.
    """

    model: str
    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    parameters: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of equal length, in the order of the inputs.

    `truncated` has the indexes of the inputs that were cut to the model's context window.
    """

    vectors: Sequence[Sequence[float]]
    usage: Usage | None = None
    truncated: Sequence[int] = ()


def _no_header(_name: str) -> str | None:
    return None


@dataclass(slots=True)
class CallContext:
    """What a backend may know of the call beside its request. Backends must not assign to its attributes.

    It is not frozen, because that would take 1.4 µs of every call.

    Attributes:
        headers: The client's headers that may be forwarded, with names in lower case.
        authorization: The client's `Authorization` header, if an upstream without a key of its own may receive it.
        heartbeat_interval: Idle seconds after which a stream must yield `HEARTBEAT`. 0 means never.
        caller: The call's credential, which must only be used to distinguish callers.
        conversation_id: Value of the header `X-Conversation-Id`.
        sent_header: Looks up any header of the client's request, for backends that are configured to read it. The
            value must not be forwarded elsewhere.
        reply_headers: Headers of the response, to which a backend may add until its first delta.
        timeouts: Timeouts of the route for this attempt, which replace those of the model config.
        resends: Names of the servers to which a request was sent once more within one attempt.
        is_whole: True if the client gets the answer once it is complete, so that its size is limited.
        trace: The trace of the call, or None without traces.
        attempts: The attempts at the targets of the route, in their order.
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
    timeouts: Timeouts | None = None
    resends: list[str] = field(default_factory=list)
    is_whole: bool = False
    attempts: list[AttemptRecord] = field(default_factory=list)
    trace: Trace | None = None

    def note_unsent(self) -> None:
        """Note that the current attempt ends before its request was sent."""
        if self.attempts:
            self.attempts[-1].is_sent = False

    @property
    def silence_seconds(self) -> float:
        """Former name of `heartbeat_interval`, for third-party backends."""
        return self.heartbeat_interval
