"""Any server that speaks OpenAI's protocol: OpenAI, Azure, vLLM, Ollama, another gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit, urlunsplit

from openai_compat.backends.base import CHAT_PARAMETERS, Backend, SupportsChat, SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.parsing.openai_chat import read_chat_completion, read_chat_stream
from openai_compat.backends.parsing.openai_errors import read_error, refuses_stream_options, to_status_error
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamError, UpstreamStatusError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

if TYPE_CHECKING:
    from openai_compat.backends.auth.base import Credentials
    from openai_compat.backends.http.client import StreamedResponse

MAX_REMEMBERED: Final = 1000
"""How many models are known to give no usage: their names come from the clients."""


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """`stream_usage: false` for an upstream that must not be asked for token usage in streams."""

    stream_usage: bool = True


class OpenAIBackend(Backend, SupportsChat, SupportsForwarding):
    """Forwards what is already in its peer's language, and translates for those front doors that are not."""

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
        # With API_KEYS set, what callers send is for this server alone: that an upstream misses one is not their fault.
        self._judges_caller = (
            credentials.is_caller_owned if credentials else not (self._has_credential or resources.settings.api_keys)
        )
        refuses_usage = entry.profile is not None and entry.profile.strips("stream_options")
        self._may_stream_usage = options.stream_usage and not refuses_usage
        self._without_usage: set[str] = set()
        self._gate = resources.gate(entry)

    def may_request_usage(self, model: str) -> bool:
        return self._may_stream_usage and model not in self._without_usage

    def mark_usage_unsupported(self, model: str) -> None:
        """The peer refused `stream_options` for this model, and answered without: it is not asked again."""
        if len(self._without_usage) >= MAX_REMEMBERED:
            self._without_usage.clear()
        self._without_usage.add(model)

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        headers = {**call.headers, **self._headers}
        if self._credentials is not None:
            headers["authorization"] = self._credentials.authorization(context)
        elif not self._has_credential and context.authorization is not None:
            headers["authorization"] = context.authorization
        reply = self._send(call, headers, context)
        if reply.status == 401 and self._credentials is not None:
            reply = self._send_renewed(self._credentials, reply, call, headers, context)
        if (refusal := self._to_refusal(reply.status)) is not None:
            reply.close()
            raise refusal
        return reply

    def _send_renewed(
        self,
        credentials: Credentials,
        refused: StreamedResponse,
        call: UpstreamRequest,
        headers: dict[str, str],
        context: CallContext,
    ) -> StreamedResponse:
        """Once more with another credential, where there is one: nothing has been done for the refused call yet."""
        is_repeatable = call.body is None or isinstance(call.body, bytes)
        authorization = credentials.refresh(headers["authorization"], context) if is_repeatable else None
        if authorization is None:
            return refused
        refused.close()
        return self._send(call, {**headers, "authorization": authorization}, context)

    def _send(self, call: UpstreamRequest, headers: Mapping[str, str], context: CallContext) -> StreamedResponse:
        return self.resources.forwarder.send(
            call.method,
            self._url(call.path),
            headers=headers,
            timeouts=self.entry.timeouts,
            context=context,
            body=call.body,
            body_length=call.body_length,
            gate=self._gate,
        )

    def _to_refusal(self, status: int | None) -> UpstreamAuthenticationError | None:
        """The error where `status` judges what this server sent, and not what the caller did."""
        if status not in {401, 403} or self._judges_caller:
            return None
        problem = "refused the credential" if self._has_credential else "wants a credential, but there is none"
        return UpstreamAuthenticationError(f"The upstream {problem} that this server holds for it.")

    def _to_error(self, status: int | None, body: bytes) -> UpstreamError:
        """For an error that came with status 200 and names another within."""
        return self._to_refusal(status) or to_status_error(status, body)

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
        reply = self.forward(UpstreamRequest("POST", "chat/completions", headers, json.dumps(body).encode()), context)
        try:
            if reply.status >= 400:
                raise read_error(reply)
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                return read_chat_stream(reply, self._to_error)
            return iter(read_chat_completion(reply.read(), self._to_error))
        except BaseException:
            reply.close()
            raise

    def _url(self, path: str) -> str:
        path, _, query = path.partition("?")
        joined = "&".join(part for part in (self._query, query) if part)
        return f"{self._root}/{path}?{joined}" if joined else f"{self._root}/{path}"
