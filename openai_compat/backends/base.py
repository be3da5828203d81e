"""The seam: what a thing that answers must offer, and nothing of how the answer travels.

A backend subclasses `Backend` and one base class for each thing it can do. The service asks once, with `isinstance`;
what is missing is answered by name. A backend knows no Flask, no status code and no JSON envelope; it raises the
errors of `openai_compat.core.errors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.core.errors import CapabilityError
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
    """The options of a kind that has none."""


class Backend:
    """One entry of the models file, ready to answer.

    `Options` is a frozen dataclass: its fields are the keys that an entry of this kind may have beside the common ones,
    its annotations their types (`str`, `float`, `int`, `bool`, `dict`, or such a type `| None`), its defaults their
    defaults. `__post_init__` may raise `ValueError` with a sentence for the user. Creating a backend must be cheap: no
    network, no heavy import; those belong to the first call.
    """

    Options: ClassVar[type[Any]] = NoOptions
    takes_variables: ClassVar[bool] = False
    """Whether `${NAME}` in the texts of the options is a variable of the environment, for `ModelConfig.expand`."""

    def __init__(self, entry: ModelConfig, options: Any, resources: BackendResources) -> None:
        self.entry = entry
        self.profile = entry.profile
        self.hooks = entry.hooks
        self.options = options
        self.resources = resources

    @classmethod
    def validate_with_others(
        cls, entry: ModelConfig, settings: Settings, entries: Mapping[str, ModelConfig]
    ) -> Iterable[str]:
        """What is wrong with an entry in the company of all others, a sentence each: asked once, at the start."""
        return ()

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterable[str]:
        """What is wrong with an entry beyond the types of its options, a sentence each; asked before the start."""
        return ()

    @property
    def name(self) -> str:
        """The public name of the model."""
        return self.entry.name

    def describe(self) -> Mapping[str, Any]:
        """What `GET /v1/models/{id}` adds to the entry's own facts, such as a state or a context window."""
        return {}

    def close(self) -> None:
        """Gives back what was acquired since the first call; called once, when the worker ends."""


class SupportsChat(ABC):
    """Answers conversations.

    `supported_chat_parameters` names those of `CHAT_PARAMETERS` that this backend honours in every request. The service
    refuses a request with another one of them before the backend is called.
    """

    supported_chat_parameters: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """The answer, piece by piece; the iterator's `close()` stops the work behind it.

        Everything that can be refused is refused here, before the iterator is returned. Where nothing happens for
        `context.silence_seconds`, the iterator yields `HEARTBEAT`.
        """


class SupportsCompletions(ABC):
    """Continues text.

    `supported_completion_parameters` names those of `COMPLETION_PARAMETERS` that this backend honours in every request.
    """

    supported_completion_parameters: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        """Like `SupportsChat.chat`, with one run of choices for each prompt."""


class SupportsEmbeddings(ABC):
    """Turns texts into vectors."""

    @abstractmethod
    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        """One vector for each input, in their order.

        Raises:
            UnsupportedParameterError: for `dimensions` that this model cannot give.
        """


class SupportsForwarding(ABC):
    """A peer that speaks OpenAI's protocol itself: bytes in, bytes out."""

    upstream_model: str | None
    """What the peer calls the model, where that differs from the name the client uses."""
    profile: Profile | None
    """What the peer does not take as OpenAI does."""
    hooks: Hooks | None
    """A user's own functions on the way of a call."""

    def may_request_usage(self, model: str) -> bool:
        """Whether `stream_options` may be added to a streamed call for the peer's `model`."""
        return True

    def mark_usage_unsupported(self, model: str) -> None:
        """The peer refused `stream_options` for `model`, and answered without."""
        return

    @abstractmethod
    def forward(self, call: UpstreamRequest, context: CallContext) -> UpstreamResponse:
        """The peer's answer, whatever its status; its headers have arrived, its body may not have."""


CAPABILITIES: Final[Mapping[str, type]] = {
    "chat": SupportsChat,
    "completions": SupportsCompletions,
    "embeddings": SupportsEmbeddings,
    "forwarding": SupportsForwarding,
}
"""What a description calls a backend's capabilities. `forwarding` takes whatever its peer takes."""

_MISSING: Final = {
    "chat": ("chat completions", "chat_completions_not_available"),
    "completions": ("text completions", "completions_not_available"),
    "embeddings": ("embeddings", "embeddings_backend_unavailable"),
}
"""What is not supported, in words and as a code that clients of completion-only servers know."""


_ENDPOINTS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}


def missing_capability(model: str, capability: str, offers: Iterable[str]) -> CapabilityError:
    """The answer to a path that a model can never serve; `offers` are the capabilities that it has."""
    what, code = _MISSING[capability]
    doors = " or ".join(_ENDPOINTS[name] for name in offers if name in _ENDPOINTS)
    use = f"; use {doors}" if doors else ""
    return CapabilityError(f"The model '{model}' does not support {what}{use}.", param="model", code=code)


def capabilities_of(backend: Backend) -> list[str]:
    """The names of what it can do."""
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
"""Chat parameters that change what the answer must be, so that ignoring one would be a lie.

`tool_choice` and `parallel_tool_calls` mean nothing without `tools`, nor `function_call` without `functions`;
`modalities` asks for `audio` by another name. Everything else is a hint for sampling or a note for the caller's books.
"""

COMPLETION_PARAMETERS = frozenset({"n", "best_of", "logprobs", "echo", "suffix", "stop", "max_tokens", "logit_bias"})
"""The same for text completions."""


def option_names(backend_class: type[Backend]) -> tuple[str, ...]:
    """The keys that an entry of this kind may have beside the common ones."""
    return tuple(option.name for option in fields(backend_class.Options))
