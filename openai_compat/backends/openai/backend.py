"""Backend for servers that speak OpenAI's protocol, such as OpenAI, Azure, vLLM, Ollama or another gateway."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from openai_compat.backends.base import CHAT_PARAMETERS, SupportsChat, SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.http_backend import HTTPBackend
from openai_compat.backends.parsing.answer_format import check_status, detect_events
from openai_compat.backends.parsing.openai_chat import read_chat_completion, read_chat_stream
from openai_compat.backends.parsing.openai_errors import read_error, refuses_stream_options, to_status_error
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamError, UpstreamStatusError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

if TYPE_CHECKING:
    from openai_compat.backends.auth.base import Credentials
    from openai_compat.backends.http.client import StreamedResponse
    from openai_compat.core.settings import ModelConfig, Settings

ACCOUNT_HEADERS: Final = frozenset({"openai-organization", "openai-project"})
"""Headers by which a caller chooses the account that a call is charged to, also with the server's key."""
RESPONSES_MISSING_SECONDS: Final = 600.0
"""How long `responses: auto` translates after a 404, before it asks the upstream again."""
MAX_REMEMBERED: Final = 1000
"""The number of models without usage to remember. It is limited because clients choose the names."""


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Options of kind `openai`.

    `stream_usage: false` is for upstreams that reject `stream_options`. `responses` says whether calls of the Responses
    API are passed through (`native`), translated to chat (`translated`), or passed through once to find out (`auto`).
    """

    stream_usage: bool = True
    responses: Literal["auto", "native", "translated"] = "auto"


class OpenAIBackend(HTTPBackend, SupportsChat, SupportsForwarding):
    """A backend that forwards requests of OpenAI's protocol unchanged and translates chat for the other endpoints."""

    Options: ClassVar[type[Any]] = OpenAIOptions
    supported_chat_parameters = CHAT_PARAMETERS

    def __init__(
        self, entry: Any, options: OpenAIOptions, resources: BackendResources, credentials: Credentials | None = None
    ) -> None:
        super().__init__(entry, options, resources)
        root = urlsplit(entry.base_url)
        self._root = urlunsplit((root.scheme, root.netloc, root.path.rstrip("/"), "", ""))
        self._query = root.query
        self.upstream_model: str | None = entry.upstream_model
        self._headers = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key:
            self._headers.setdefault("authorization", f"Bearer {entry.api_key}")
        self._credentials = credentials
        self._has_credential = (
            credentials is not None
            or root.username is not None
            or not self._headers.keys().isdisjoint({"authorization", "api-key", "x-api-key"})
        )
        refuses_usage = entry.profile is not None and entry.profile.strips("stream_options")
        self._may_stream_usage = options.stream_usage and not refuses_usage
        self._without_usage: set[str] = set()
        # Profiles, hooks and emulated tools concern chats, so `auto` translates for them.
        is_plain = entry.profile is None and entry.hooks is None and not entry.changes_chats
        may_try = options.responses == "auto" and is_plain
        self._has_responses = options.responses == "native" or may_try
        self._tries_responses = may_try
        self._responses_missing_until = 0.0
        self._limiter = resources.limiter_for(entry)

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterable[str]:
        yield from super().validate(entry, options, settings)
        if entry.hooks is not None and getattr(options, "responses", None) == "native":
            yield "responses: native passes calls through, so the model cannot have hooks"
        if entry.changes_chats and getattr(options, "responses", None) == "native":
            yield "responses: native passes calls through, so the model cannot have `tools` or `response_format`"

    def may_request_usage(self, model: str) -> bool:
        return self._may_stream_usage and model not in self._without_usage

    def mark_usage_unsupported(self, model: str) -> None:
        """Remember not to send `stream_options` for `model` again."""
        if len(self._without_usage) >= MAX_REMEMBERED:
            self._without_usage.clear()
        self._without_usage.add(model)

    def may_forward_responses(self) -> bool:
        return self._has_responses and monotonic() >= self._responses_missing_until

    def mark_responses_missing(self) -> bool:
        """Translate for `RESPONSES_MISSING_SECONDS`, unless the model config says `native`."""
        if self._tries_responses:
            self._responses_missing_until = monotonic() + RESPONSES_MISSING_SECONDS
        return self._tries_responses

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        headers = {**call.headers, **self._headers}
        if self._credentials is not None:
            headers["authorization"] = self._credentials.authorization(context)
        elif not self._has_credential and context.authorization is not None:
            headers["authorization"] = context.authorization
        response = self._send(call, headers, context)
        if response.status == 401 and self._credentials is not None:
            response = self._send_refreshed(self._credentials, response, call, headers, context)
        if (refusal := self.to_refusal(response.status)) is not None:
            response.close()
            raise refusal
        return response

    def _send_refreshed(
        self,
        credentials: Credentials,
        refused: StreamedResponse,
        call: UpstreamRequest,
        headers: dict[str, str],
        context: CallContext,
    ) -> StreamedResponse:
        """Repeat a refused call with another credential. Return the refused response if there is none."""
        is_repeatable = call.body is None or isinstance(call.body, bytes)
        authorization = credentials.refresh(headers["authorization"], context) if is_repeatable else None
        if authorization is None:
            return refused
        refused.close()
        return self._send(call, {**headers, "authorization": authorization}, context)

    def _judges_caller(self) -> bool:
        return super()._judges_caller() if self._credentials is None else self._credentials.is_caller_owned

    def sends_caller_credential(self, context: CallContext) -> bool:
        if not (ACCOUNT_HEADERS - self._headers.keys()).isdisjoint(context.headers):
            return True
        return self._judges_caller() and (self._credentials is not None or context.authorization is not None)

    def _to_error(self, response: UpstreamResponse, status: int | None, body: bytes) -> UpstreamError:
        """Return the error for an error object in a response of status 200. `status` is the one that it names."""
        if (refusal := self.to_refusal(status)) is not None:
            return refusal
        error = to_status_error(status, response.redact(body))
        error.is_within_answer = True
        return error

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        body: dict[str, Any] = {"model": self.upstream_model or request.model, "messages": request.messages}
        body.update(request.parameters)
        body["stream"] = request.is_streamed
        if not (request.is_streamed and self.may_request_usage(request.model)):
            return self._chat(body, context)
        try:
            return self._chat({**body, "stream_options": {"include_usage": True}}, context)
        except UpstreamStatusError as error:
            if not refuses_stream_options(error.upstream_status, error.to_envelope()["error"]):
                raise
        deltas = self._chat(body, context)
        self.mark_usage_unsupported(request.model)
        return deltas

    def _chat(self, body: Mapping[str, Any], context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        headers = {**context.headers, "content-type": "application/json"}
        is_repeatable = not body.get("store")
        request = UpstreamRequest(
            "POST", "chat/completions", headers, json.dumps(body).encode(), is_repeatable=is_repeatable
        )
        response = self.forward(request, context)
        try:
            check_status(response.status)
            if response.status >= 400:
                raise read_error(response)
            answer, is_stream = detect_events(response, is_streamed=bool(body["stream"]))
            to_error = partial(self._to_error, response)
            if is_stream:
                return read_chat_stream(answer, to_error)
            return iter(read_chat_completion(answer.read(), to_error))
        except BaseException:
            response.close()
            raise
