"""Backend for Haystack pipelines, used by the workers.

Pipelines block and compute, so they run in a sidecar process (`openai_compat/sidecars/haystack/`). This package never
imports Haystack.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.base import CHAT_PARAMETERS, Backend, SupportsChat
from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.parsing.openai_chat import read_chat_stream
from openai_compat.backends.parsing.openai_errors import read_error, to_status_error
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    InternalError,
    InvalidRequestError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.extras import install_hint
from openai_compat.core.profiles import ADAPTED_HEADER, from_header, record_adaptations
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

from .sidecar_client import HaystackClient

STREAM: Final = {"stream": True, "stream_options": {"include_usage": True}}
KIND: Final = "haystack"
MISSING_EXTRA: Final = f"kind haystack needs {install_hint('haystack')}"
MAX_ID_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class HaystackOptions:
    """Options of a model config of kind `haystack`, described in `docs/guides/haystack.md`."""

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
                raise ValueError(f"{name} must be a string")
        for name in ("top_k", "concurrency"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more")
        if not isinstance(self.conversation_by_user, bool):
            raise ValueError("conversation_by_user must be true or false")
        _check_sockets("inputs", self.inputs)
        _check_sockets("outputs", self.outputs)
        if not (isinstance(self.allowed_modules, list) and all(isinstance(name, str) for name in self.allowed_modules)):
            raise ValueError("allowed_modules must be a list of names such as mypackage.*")
        self._check_source()

    def _check_source(self) -> None:
        sources = [name for name in ("pipeline", "factory", "documents") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)} are mutually exclusive: each defines the complete pipeline")
        if self.factory is not None and not all(self.factory.partition(":")):
            raise ValueError("factory must be package.module:function")
        needs_documents = [name for name in ("index", "embedder", "document_url") if getattr(self, name)]
        if needs_documents and not self.documents:
            raise ValueError(f"{needs_documents[0]} requires documents")
        if self.system_prompt and (self.pipeline or self.factory):
            raise ValueError("system_prompt applies to the built-in pipeline only; set it in your own pipeline")


def _check_sockets(option: str, mapping: Any) -> None:
    """Raise ValueError if a value of `mapping` names no socket as `component.socket`, and is no list of them."""
    if not isinstance(mapping, dict):
        raise ValueError(f"{option} must be a mapping, such as {{query: retriever.query}}")
    for name, value in mapping.items():
        for path in value if isinstance(value, list) else [value]:
            if not (isinstance(path, str) and all(path.partition("."))):
                raise ValueError(f"{option}: {name} must be a component and its socket (retriever.query)")


_OWN_ERRORS: Final[Mapping[str | None, Callable[[str], OpenAICompatError]]] = {
    kind.code: kind
    for kind in (
        InternalError,
        UpstreamAuthenticationError,
        UpstreamConnectionError,
        UpstreamInvalidResponseError,
        UpstreamTimeoutError,
        UpstreamTruncatedError,
    )
}


class HaystackBackend(Backend, SupportsChat):
    """Backend that runs pipelines in the sidecar and yields their deltas as the components produce them."""

    Options = HaystackOptions
    supported_chat_parameters: ClassVar[frozenset[str]] = CHAT_PARAMETERS - {"audio", "web_search_options"}

    def __init__(self, entry: ModelConfig, options: HaystackOptions, resources: BackendResources) -> None:
        super().__init__(entry, options, resources)
        self._sidecar = HaystackClient(resources.settings)

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
        """Return the deltas of the sidecar's stream.

        Complete answers are streamed between the processes too, so that the idle timeout applies to each delta.
        """
        headers = {
            "content-type": "application/json",
            "x-request-id": context.request_id,
            "authorization": context.authorization,
            "x-forwarded-access-token": context.sent_header(USER_TOKEN),
            "x-conversation-id": self._conversation_key(request, context),
        }
        parameters = {name: value for name, value in request.parameters.items() if name != "conversation_id"}
        body = {**parameters, "model": self.name, "messages": request.messages, **STREAM}
        reply = self._send("POST", "chat/completions", headers, context, json.dumps(body, ensure_ascii=False).encode())
        if reply.status >= 400:
            raise _to_error(read_error(reply))
        record_adaptations(from_header(reply.headers.get(ADAPTED_HEADER, "")), context.reply_headers)
        return read_chat_stream(reply, _to_stream_error)

    def sends_caller_credential(self, context: CallContext) -> bool:
        return context.authorization is not None or context.sent_header(USER_TOKEN) is not None

    def _send(
        self, method: str, path: str, headers: Mapping[str, str | None], context: CallContext, body: bytes | None = None
    ) -> StreamedResponse:
        """Send a request to the sidecar, which is started unless it runs.

        Raises:
            UpstreamTruncatedError: the sidecar ended before it answered. The call is not sent again, because it may be
                the reason.
        """
        send = partial(
            self.resources.http_client.send,
            method,
            f"{self._sidecar.url}/{path}",
            headers={name: value for name, value in headers.items() if value is not None},
            timeouts=self.entry.timeouts,
            context=context,
            body=body,
            redactor=self.redactor,
        )
        try:
            if self._sidecar.is_joined:
                with suppress(UpstreamConnectError):
                    return send()
            self._sidecar.start(context.cancellation)
            return send()
        except UpstreamConnectionError as error:
            raise UpstreamTruncatedError("The Haystack sidecar ended before the answer was complete.") from error

    def _conversation_key(self, request: ChatRequest, context: CallContext) -> str | None:
        """Return the key of the stored conversation, or None if the request names none.

        The key is a hash that includes the model and the caller's API key, so callers cannot reach each other's
        conversations by using the same id.

        Raises:
            InvalidRequestError: the id is not a string, or is too long.
        """
        conversation_id = request.parameters.get("conversation_id", context.conversation_id)
        param = "conversation_id"
        if conversation_id is None and self.options.conversation_by_user:
            conversation_id, param = request.parameters.get("user"), "user"
        if conversation_id is None:
            return None
        if not isinstance(conversation_id, str) or not 0 < len(conversation_id) <= MAX_ID_CHARS:
            raise InvalidRequestError(f"'{param}' must be a string of 1 to {MAX_ID_CHARS} characters.", param=param)
        parts = (self.name, context.caller or "", param, conversation_id)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def describe(self) -> Mapping[str, Any]:
        """Return the pipeline's components, inputs and outputs, or its load error with the state `failed`."""
        try:
            reply = self._send("GET", f"models/{quote(self.name)}", {}, CallContext("describe"))
            if reply.status >= 400:
                raise read_error(reply)
            description: Mapping[str, Any] = json.loads(reply.read())
        except OpenAICompatError as error:
            return {"state": "failed", "problem": error.message}
        return description

    def close(self) -> None:
        self._sidecar.close()


def _to_stream_error(status: int | None, body: bytes) -> OpenAICompatError:
    """Return the error for an error event of the sidecar.

    It writes the type `server_error` itself where a model's upstream names none, so this type stands for no status.
    """
    error = to_status_error(status, body)
    is_unnamed = status == 500 and error.type == "server_error" and error.code != "500"
    return _to_error(to_status_error(None, body) if is_unnamed else error)


def _to_error(error: UpstreamStatusError) -> OpenAICompatError:
    """Return the sidecar's own errors as this server's, so that routing treats them as those of any other kind.

    The pipeline's internal errors are neither retried nor counted as faults, a refused key opens the circuit, and a
    timeout is not retried.
    """
    own_error = _OWN_ERRORS.get(error.code)
    return error if own_error is None else own_error(error.message)


def _missing_files(options: HaystackOptions) -> Iterator[str]:
    if options.pipeline and not Path(options.pipeline).is_file():
        yield f"pipeline: there is no file {options.pipeline}"
    if options.documents and not Path(options.documents).is_dir():
        yield f"documents: there is no folder {options.documents}"


def _missing_models(
    entry: ModelConfig, options: HaystackOptions, settings: Settings, entries: Mapping[str, ModelConfig]
) -> Iterator[str]:
    """Yield an error for `generator` and `embedder` if neither a model config nor the default upstream serves them."""
    for key in ("generator", "embedder"):
        name = getattr(options, key)
        target = entries.get(name) if name else None
        if target is not None and target.kind == KIND:
            yield f"{key}: '{name}' is itself a pipeline"
        elif name and target is None and settings.default_upstream is None:
            yield f"{key}: there is no model '{name}', and no default upstream"
    has_own = bool(options.generator or options.pipeline or options.factory or entry.base_url)
    if not has_own and settings.default_upstream is None:
        yield "needs a `generator`, a `base_url`, or a default upstream (OPENAI_API_KEY)"
