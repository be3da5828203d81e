"""Backend interface.

A backend produces answers. It knows nothing of Flask, HTTP status codes or OpenAI's JSON envelope. It subclasses
`Backend` and one base class for each capability: `SupportsChat`, `SupportsCompletions`, `SupportsEmbeddings`,
`SupportsForwarding`, `SupportsMessages`. The services check capabilities with `isinstance`, and answer calls that need
a missing one with an error. They also add what OpenAI's objects contain besides: ids, times, the `model` and the usage.

Methods raise the errors of `openai_compat.core.errors`. Any other exception becomes an `InternalError`, whose cause is
logged and not sent to the client. All times are in seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.core.errors import CapabilityError, UpstreamError
from openai_compat.core.former_names import adopt_former_attributes, find_renamed
from openai_compat.core.redaction import Redactor
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import (
    CallContext,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbeddingsRequest,
    TextDelta,
)

from .resources import BackendResources

if TYPE_CHECKING:
    from openai_compat.core.hooks import Hooks
    from openai_compat.core.profiles import Profile
    from openai_compat.core.settings import ModelConfig, Settings


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a kind without any."""


class Backend:
    """A configured model that can answer calls.

    `Options` is a frozen dataclass with the keys that a model config of this kind may have besides the common ones.
    Field annotations give the types of the values (`str`, `float`, `int`, `bool`, `dict`, or one of them `| None`), and
    field defaults the defaults. `__post_init__` may raise `ValueError` with a sentence for the user.

    One instance serves all calls of its model in a worker, concurrently. The constructor must be cheap: network access
    and heavy imports belong to the first call. Nothing CPU-bound may run in a call, since all calls of a worker share
    one thread.
    """

    Options: ClassVar[type[Any]] = NoOptions
    takes_variables: ClassVar[bool] = False
    """True if `${NAME}` in options is an environment variable, for `ModelConfig.expand` to replace."""
    judges_requests: ClassVar[bool] = False
    """True if no upstream judges the values and combinations of parameters, so that they are judged here."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept the former names of attributes in third-party backends."""
        super().__init_subclass__(**options)
        adopt_former_attributes(cls)

    def __init__(self, entry: ModelConfig, options: Any, resources: BackendResources) -> None:
        """Create a backend from its model config, its `Options` instance and the resources of the process."""
        self.entry = entry
        self.profile = entry.profile
        self.hooks = entry.hooks
        self.changes_chats = entry.changes_chats
        self.options = options
        self.resources = resources
        self.redactor = Redactor(entry.secrets())

    @classmethod
    def validate_with_others(
        cls, entry: ModelConfig, settings: Settings, entries: Mapping[str, ModelConfig]
    ) -> Iterable[str]:
        """Return the problems of a model config that depend on other models, such as one that it names.

        Called at startup. Each problem is a sentence for the user, and any problem prevents the start. `entries` has
        the configs of all models by name.
        """
        return ()

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterable[str]:
        """Return the problems of a model config beyond the types of its options.

        Called at startup. Each problem is a sentence for the user, and any problem prevents the start.
        """
        return ()

    def sends_caller_credential(self, context: CallContext) -> bool:
        """Return True if the upstream receives the caller's own credential, or its choice of account, in this call.

        Rate limits and refusals are then the caller's, and other callers may still use the model.
        """
        return False

    @property
    def name(self) -> str:
        """The model's public name."""
        return self.entry.name

    def describe(self) -> Mapping[str, Any]:
        """Return JSON values that `GET /v1/models/{id}` adds to the model config's, such as a state."""
        return {}

    def close(self) -> None:
        """Release what the calls have acquired. Called once, when the worker stops."""


class SupportsChat(ABC):
    """Capability of answering chat calls.

    `supported_chat_parameters` are those of `CHAT_PARAMETERS` that the backend honours in every request. The service
    rejects requests with any other of them, so the backend never sees one.
    """

    supported_chat_parameters: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Start an answer and return an iterator of its deltas.

        Validate the request here, before the iterator is returned. Errors that are raised here, or by the iterator
        before its first delta, set the HTTP status and permit a retry or a fallback. Later ones end the stream with an
        error event.

        The last delta of each choice has its `finish_reason`. A choice without one is reported as truncated. After
        `context.heartbeat_interval` seconds without a delta (0 for never) the iterator yields `HEARTBEAT`. Its
        `close()`, which generators have already, stops the work behind it. It is called on every path, including a
        client disconnect. Waits end as soon as `context.cancellation` is cancelled.

        Raises:
            RequestError: The client's mistake, such as `InvalidRequestError` or `UnsupportedParameterError`.
            ModelBusyError: The model has no capacity now. Its `retry_after` is in seconds.
            ModelUnavailableError: The model cannot be used, and retries will not help.
            UpstreamError: A server behind the backend failed. The subclass decides between retry and fallback.
            CallCancelledError: The call was cancelled (`context.cancellation.raise_if_cancelled`).
        """


class SupportsCompletions(ABC):
    """Capability of answering text completion calls.

    `supported_completion_parameters` are those of `COMPLETION_PARAMETERS` that the backend honours in every request.
    The service rejects requests with any other of them.
    """

    supported_completion_parameters: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        """Start a completion and return an iterator of its deltas, under the rules of `SupportsChat.chat`.

        Choices are numbered prompt by prompt. With `n` choices for each prompt, choice `c` of prompt `p` has the index
        `p * n + c`.
        """


class SupportsEmbeddings(ABC):
    """Capability of turning texts into vectors."""

    @abstractmethod
    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        """Return one vector for each input, in the order of the inputs.

        Raises:
            UnsupportedParameterError: The model cannot produce the requested `dimensions`.
            RequestError, ModelBusyError, ModelUnavailableError, UpstreamError, CallCancelledError: As in
                `SupportsChat.chat`.
        """


class SupportsForwarding(ABC):
    """Capability of passing requests on to an upstream that speaks OpenAI's protocol, as bytes in both directions."""

    upstream_model: str | None
    """The upstream's name for the model, or None if it is the client's."""
    profile: Profile | None
    """The deviations of the upstream from OpenAI's parameters, or None."""
    hooks: Hooks | None
    """The user's functions to call before and after each call, or None."""
    changes_chats: bool
    """True if tools or structured output of chats are emulated or dropped here."""

    def may_request_usage(self, model: str) -> bool:
        """Return True if the service may add `stream_options` to streamed calls of the upstream's `model`."""
        return True

    def mark_usage_unsupported(self, model: str) -> None:
        """Remember that the upstream rejects `stream_options` for `model`.

        Called after a call with `stream_options` was rejected and the same call without it succeeded.
        """
        return

    def may_forward_responses(self) -> bool:
        """Return True if the upstream has, or may have, the Responses API."""
        return False

    def mark_responses_missing(self) -> bool:
        """Note that the upstream has no endpoint for responses. Return True if calls are to be translated instead."""
        return False

    def to_refusal(self, status: int) -> UpstreamError | None:
        """Return the error for a status that concerns this server's own credential, or None for any other status."""
        return None

    @abstractmethod
    def forward(self, call: UpstreamRequest, context: CallContext) -> UpstreamResponse:
        """Send the request and return the upstream's response, of any status, as soon as its headers have arrived.

        The caller closes the response.

        Raises:
            UpstreamAuthenticationError: The upstream refused a credential of this server.
            UpstreamConnectionError: No response arrived.
            UpstreamTimeoutError: A time limit expired.
            UpstreamBusyError: The upstream has `max_concurrent` calls already.
            RequestError: The caller did not send the credential that this model needs.
            CallCancelledError: The call was cancelled.
        """


class SupportsMessages(ABC):
    """Capability of passing calls on to an upstream with Anthropic's Messages API, as bytes in both directions."""

    upstream_model: str | None
    """The upstream's name for the model, or None if it is the client's."""
    profile: Profile | None
    """The deviations of the upstream from OpenAI's parameters, or None."""
    hooks: Hooks | None
    """The user's functions to call before and after each call, or None."""
    changes_chats: bool
    """True if tools or structured output of chats are emulated or dropped here."""

    def to_refusal(self, status: int | None) -> UpstreamError | None:
        """Return the error for a status that concerns this server's own credential, or None for any other status."""
        return None

    @abstractmethod
    def forward_messages(self, call: UpstreamRequest, context: CallContext) -> UpstreamResponse:
        """Send the request and return the upstream's response, of any status, as soon as its headers have arrived.

        The caller closes the response.

        Raises:
            As `SupportsForwarding.forward`.
        """


CAPABILITIES: Final[Mapping[str, type]] = {
    "chat": SupportsChat,
    "completions": SupportsCompletions,
    "embeddings": SupportsEmbeddings,
    "forwarding": SupportsForwarding,
}
"""Capabilities by the names that model descriptions use. `forwarding` covers every path that the upstream has."""

_MISSING: Final = {
    "chat": ("chat completions", "chat_completions_not_available"),
    "completions": ("text completions", "completions_not_available"),
    "embeddings": ("embeddings", "embeddings_backend_unavailable"),
    "forwarding": ("this endpoint", "endpoint_not_available"),
}
"""capability -> (its name in a message, the error code for its absence)"""

_ENDPOINTS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}


def missing_capability(model: str, capability: str, available: Iterable[str]) -> CapabilityError:
    """Return the error for an endpoint that the model does not support. It lists the endpoints of `available`."""
    missing, code = _MISSING[capability]
    endpoints = " or ".join(_ENDPOINTS[name] for name in available if name in _ENDPOINTS)
    hint = f"; use {endpoints}" if endpoints else ""
    return CapabilityError(f"The model '{model}' does not support {missing}{hint}.", param="model", code=code)


def capabilities_of(backend: Backend) -> list[str]:
    """Return the names of the backend's capabilities."""
    return [name for name, capability in CAPABILITIES.items() if isinstance(backend, capability)]


CHAT_PARAMETERS = frozenset(
    {
        "n",
        "logprobs",
        "top_logprobs",
        "tools",
        "functions",
        "response_format",
        "audio",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "web_search_options",
        "logit_bias",
    }
)
"""Chat parameters that determine the form of the answer. A backend must support or reject them, never ignore them.

`tool_choice` and `parallel_tool_calls` depend on `tools`, `function_call` on `functions`, and `modalities` on `audio`.
All other parameters are sampling hints or metadata of the caller.
"""

COMPLETION_PARAMETERS = frozenset({"n", "best_of", "logprobs", "echo", "suffix", "stop", "max_tokens", "logit_bias"})
"""Completion parameters that determine the form of the answer."""


def option_names(backend_class: type[Backend]) -> tuple[str, ...]:
    """Return the keys that a model config of this kind may have besides the common ones."""
    return tuple(option.name for option in fields(backend_class.Options))


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Return the present object for a former name, for third-party backends."""
        return find_renamed(__name__, name)
