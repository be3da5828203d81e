"""Backend for Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit, urlunsplit

from openai_compat.backends.base import SupportsChat, SupportsMessages
from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.http_backend import HTTPBackend
from openai_compat.backends.parsing.answer_format import check_status, detect_events
from openai_compat.backends.parsing.anthropic_errors import read_anthropic_error, to_inner_error
from openai_compat.backends.parsing.anthropic_stream import read_message, read_message_stream
from openai_compat.backends.parsing.openai_errors import find_status
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest, JSONObject

from .request import AnthropicOptions, to_headers, translate_request

DEFAULT_URL: Final = "https://api.anthropic.com/v1"
ROOT: Final = "/v1"
"""End of the API's root. Clients of Anthropic write it without, and clients of OpenAI with it."""
CREDENTIALS: Final = frozenset({"authorization", "x-api-key", "api-key"})
TOKEN_PREFIX: Final = "sk-ant-oat"  # noqa: S105 - the beginning of every OAuth token
"""Credentials that are sent as a bearer token. Keys are sent as `x-api-key`."""
_VENDOR_HEADERS: Final = ("openai-", "anthropic-", "x-stainless-")


class AnthropicBackend(HTTPBackend, SupportsChat, SupportsMessages):
    """A backend that translates chat for Claude, and passes calls of the Messages API on unchanged."""

    Options: ClassVar[type[Any]] = AnthropicOptions
    supported_chat_parameters = frozenset(
        {"tools", "functions", "response_format", "stop", "max_tokens", "max_completion_tokens"}
    )

    def __init__(self, entry: Any, options: AnthropicOptions, resources: BackendResources) -> None:
        super().__init__(entry, options, resources)
        root = urlsplit(entry.base_url or DEFAULT_URL)
        path = root.path.rstrip("/").removesuffix(ROOT) + ROOT
        self._root = urlunsplit((root.scheme, root.netloc, path, "", ""))
        self._query = root.query
        self.upstream_model: str | None = entry.upstream_model
        self._headers = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key:
            self._headers.setdefault("x-api-key", entry.api_key)
        self._has_credential = root.username is not None or not CREDENTIALS.isdisjoint(self._headers)
        self._limiter = resources.limiter_for(entry)

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        translated = translate_request(request, self.upstream_model or request.model, self.options)
        record_adaptations(translated.adaptations, context.reply_headers)
        headers = {name: value for name, value in context.headers.items() if not name.startswith(_VENDOR_HEADERS)}
        headers["content-type"] = "application/json"
        call = UpstreamRequest("POST", "messages", headers, json.dumps(translated.body).encode(), is_repeatable=True)
        response = self.forward_messages(call, context)
        try:
            check_status(response.status)
            if response.status >= 400:
                raise read_anthropic_error(response)
            answer, is_stream = detect_events(response, is_streamed=request.is_streamed)
            to_error = partial(self._to_error, response)
            if is_stream:
                return read_message_stream(answer, to_error, heartbeats=context.heartbeat_interval > 0)
            return iter(read_message(answer.read(), to_error))
        except BaseException:
            response.close()
            raise

    def forward_messages(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        headers = {**call.headers, **to_headers(self.options, call.headers), **self._headers}
        if not self._has_credential and context.authorization is not None:
            headers |= _to_credential(context.authorization)
        response = self._send(call, headers, context)
        if (refusal := self.to_refusal(response.status)) is not None:
            response.close()
            raise refusal
        return response

    def sends_caller_credential(self, context: CallContext) -> bool:
        return self._judges_caller() and context.authorization is not None

    def _to_error(self, response: UpstreamResponse, value: JSONObject) -> UpstreamError:
        """Return the error for an error object in an answer of status 200."""
        return self.to_refusal(find_status(value)) or to_inner_error(value, response)


def _to_credential(authorization: str) -> Mapping[str, str]:
    """Return the header for a caller's credential, whose scheme says nothing of what it is."""
    key = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
    if not key or key.startswith(TOKEN_PREFIX):
        return {"authorization": authorization}
    return {"x-api-key": key}
