"""Haystack pipelines as models: the worker's side. The pipelines themselves run in a process of their own
(`openai_compat/pipelines/`), as they compute, and block; Haystack is never imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.base import CHAT_PARAMETERS, Backend, SupportsChat
from openai_compat.backends.parsing.sse import primed
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import InvalidRequestError, OpenAICompatError
from openai_compat.core.extras import install_hint
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

from .client import PipelineCall, SidecarClient
from .protocol import ADAPTED, delta_from_json

KIND: Final = "haystack"
MISSING_EXTRA: Final = f"kind haystack needs {install_hint('haystack')}"
MAX_ID_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class HaystackOptions:
    """The keys of a row; `docs/guides/haystack.md` says what each of them means."""

    generator: str | None = None
    pipeline: str | None = None
    factory: str | None = None
    documents: str | None = None
    index: str | None = None
    embedder: str | None = None
    top_k: int = 5
    document_url: str | None = None
    system_prompt: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    stream_from: str | None = None
    allowed_modules: list[str] = field(default_factory=list)
    conversation_by_user: bool = False
    concurrency: int = 32

    def __post_init__(self) -> None:
        for name in ("generator", "pipeline", "factory", "documents", "index", "embedder", "document_url",
                     "system_prompt", "stream_from"):  # fmt: skip
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be a text")
        for name in ("top_k", "concurrency"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more")
        if not isinstance(self.conversation_by_user, bool):
            raise ValueError("conversation_by_user must be true or false")
        _check_places("inputs", self.inputs)
        _check_places("outputs", self.outputs)
        if not (isinstance(self.allowed_modules, list) and all(isinstance(name, str) for name in self.allowed_modules)):
            raise ValueError("allowed_modules must be a list of names such as mypackage.*")
        self._check_source()

    def _check_source(self) -> None:
        sources = [name for name in ("pipeline", "factory", "documents") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)} cannot stand together: each of them names the whole pipeline")
        if self.factory is not None and not all(self.factory.partition(":")):
            raise ValueError("factory must be package.module:function")
        needs_documents = [name for name in ("index", "embedder", "document_url") if getattr(self, name)]
        if needs_documents and not self.documents:
            raise ValueError(f"{needs_documents[0]} means nothing without documents")
        if self.system_prompt and (self.pipeline or self.factory):
            raise ValueError("system_prompt is for the built-in pipeline; put it into yours")


def _check_places(name: str, places: Any) -> None:
    """`{what: component.socket}`, or a list of such places."""
    if not isinstance(places, dict):
        raise ValueError(f"{name} must be a mapping, such as {{query: retriever.query}}")
    for what, value in places.items():
        for place in value if isinstance(value, list) else [value]:
            if not (isinstance(place, str) and all(place.partition("."))):
                raise ValueError(f"{name}: {what} must be the name of a component and of its socket (retriever.query)")


class HaystackBackend(Backend, SupportsChat):
    """Asks the process of the pipelines, and hands on what the pipeline's components produce, as they produce it."""

    Options = HaystackOptions
    supported_chat_parameters: ClassVar[frozenset[str]] = CHAT_PARAMETERS - {"audio", "web_search_options"}

    def __init__(self, entry: ModelConfig, options: HaystackOptions, resources: BackendResources) -> None:
        super().__init__(entry, options, resources)
        self._process = SidecarClient(resources.settings)

    @classmethod
    def validate_with_others(
        cls, entry: ModelConfig, settings: Settings, entries: Mapping[str, ModelConfig]
    ) -> Iterator[str]:
        options = HaystackOptions(**entry.options)
        if find_spec("haystack") is None:
            yield MISSING_EXTRA
        yield from _missing_files(options)
        yield from _missing_models(entry, options, settings, entries)

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        parameters = {name: value for name, value in request.parameters.items() if name != "conversation_id"}
        call = self._process.call(
            {
                "op": "chat",
                "model": self.name,
                "messages": request.messages,
                "parameters": parameters,
                "conversation": self._conversation(request, context),
                "request_id": context.request_id,
                "authorization": context.authorization,
                "user_token": context.sent_header(USER_TOKEN),
            },
            context,
            self.entry.timeouts,
        )
        return _deltas(call, context)

    def _conversation(self, request: ChatRequest, context: CallContext) -> str | None:
        """Under which name this conversation is remembered: the caller's own, whatever others call theirs.

        Raises:
            PayloadError: the name is no text, or too long.
        """
        named = request.parameters.get("conversation_id", context.conversation_id)
        param = "conversation_id"
        if named is None and self.options.conversation_by_user:
            named, param = request.parameters.get("user"), "user"
        if named is None:
            return None
        if not isinstance(named, str) or not 0 < len(named) <= MAX_ID_CHARS:
            raise InvalidRequestError(f"'{param}' must be a text of 1 to {MAX_ID_CHARS} characters.", param=param)
        parts = (self.name, context.caller or "", param, named)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def describe(self) -> Mapping[str, Any]:
        """The pipeline's components, inputs and outputs; a pipeline that cannot be loaded says so."""
        try:
            call = self._process.call(
                {"op": "describe", "model": self.name}, CallContext("describe"), self.entry.timeouts
            )
            for message in call:
                if not isinstance(message, Heartbeat):
                    return message
        except OpenAICompatError as error:
            return {"state": "failed", "problem": error.message}
        return {}

    def close(self) -> None:
        self._process.close()


@primed
def _deltas(call: PipelineCall, context: CallContext) -> Generator[ChatDelta | Heartbeat, None, None]:
    try:
        yield HEARTBEAT
        for message in call:
            if isinstance(message, Heartbeat):
                yield message
            elif ADAPTED in message:
                record_adaptations(message[ADAPTED], context.reply_headers)
            else:
                yield delta_from_json(message)
    finally:
        call.close()


def _missing_files(options: HaystackOptions) -> Iterator[str]:
    if options.pipeline and not Path(options.pipeline).is_file():
        yield f"pipeline: there is no file {options.pipeline}"
    if options.documents and not Path(options.documents).is_dir():
        yield f"documents: there is no folder {options.documents}"


def _missing_models(
    entry: ModelConfig, options: HaystackOptions, settings: Settings, entries: Mapping[str, ModelConfig]
) -> Iterator[str]:
    """Who answers for the generator and the embedder: another row, or the default upstream."""
    for key in ("generator", "embedder"):
        name = getattr(options, key)
        found = entries.get(name) if name else None
        if found is not None and found.kind == KIND:
            yield f"{key}: '{name}' is a pipeline itself"
        elif name and found is None and settings.default_upstream is None:
            yield f"{key}: there is no model '{name}', and no default upstream"
    has_own = bool(options.generator or options.pipeline or options.factory or entry.base_url)
    if not has_own and settings.default_upstream is None:
        yield "needs a `generator`, a `base_url`, or a default upstream (OPENAI_API_KEY)"
