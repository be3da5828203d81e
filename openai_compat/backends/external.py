"""Any chat API behind a URL: the conversation goes out as JSON, and whatever comes back is read as an answer.

Of the parameters, `stop`, `max_tokens` and `max_completion_tokens` are passed on and count as kept: an API that takes
them keeps them, one that does not know them could not be told otherwise. Sampling hints and unknown parameters are
passed on too. The rest of the promises (tools, `n`, `logprobs`, `response_format`, ...) change the answer's shape, and
an API of unknown shape cannot be held to them: they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..domain import CallContext, ChatDelta, ChatRequest
from ..errors import UpstreamReplyError
from ..settings import ModelEntry
from ..streams import Silence
from .base import Backend, BackendResources, SupportsChat
from .external_errors import read_external_error
from .external_reply import read_external_reply

ACCEPT: Final = "application/json, text/plain;q=0.9, */*;q=0.8"
OPENAIS_HEADERS: Final = "openai-"
"""The beginning of the headers that tell OpenAI of the caller's account there: `openai-organization` and the like."""
ACCEPT_STREAM: Final = "text/event-stream, application/x-ndjson;q=0.9, application/json;q=0.8, */*;q=0.7"


@dataclass(frozen=True, slots=True)
class ExternalOptions:
    """`reply_path` says where the text is in the API's JSON (`data.answers.0.text`); without it, it is searched for.
    `stream: false` never asks the API to stream: its answers are streamed to the client token by token all the same.
    """

    reply_path: str | None = None
    stream: bool = True

    def __post_init__(self) -> None:
        path = self.reply_path
        if path is not None and not (isinstance(path, str) and all(path.split("."))):
            raise ValueError("reply_path must be names and numbers joined by dots, such as data.answers.0.text")
        if not isinstance(self.stream, bool):
            raise ValueError("stream must be true or false")


class ExternalBackend(Backend, SupportsChat):
    """Posts `{"model", "messages", "stream", ...parameters}` to the entry's URL.

    The client's own `Authorization` stays here, and so does what it says of an account at OpenAI: they were meant for
    this server or for OpenAI, and the API's owner is someone else.
    """

    Options = ExternalOptions
    chat_promises = frozenset({"stop", "max_tokens", "max_completion_tokens"})

    def __init__(self, entry: ModelEntry, options: ExternalOptions, resources: BackendResources) -> None:
        if not entry.base_url:
            raise ValueError(f"model '{entry.name}': kind external needs a base_url")
        super().__init__(entry, options, resources)
        self._url = entry.base_url
        self._gate = resources.gate(entry)
        self._headers = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key:
            self._headers.setdefault("authorization", f"Bearer {entry.api_key}")

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Silence]:
        """The answer; returns when the reply's headers have come and are no error. Its iterator raises what
        `read_external_reply` does.

        Raises:
            UpstreamAuthenticationError: the API wants another credential than this server's.
            UpstreamStatusError, UpstreamError: the API answered with an error.
            UpstreamReplyError: it sends the call elsewhere.
            UpstreamConnectionError, UpstreamTimeoutError, CallCancelledError
        """
        is_streamed = request.is_streamed and self.options.stream
        reply = self.resources.forwarder.send(
            "POST",
            self._url,
            headers=self._to_headers(context, is_streamed=is_streamed),
            timeouts=self.entry.timeouts,
            context=context,
            body=self._to_body(request, is_streamed=is_streamed),
            gate=self._gate,
        )
        try:
            if reply.status >= 400:
                raise read_external_error(reply, self.entry)
            if reply.status >= 300:
                raise UpstreamReplyError(f"The external API redirects ({reply.status}): configure its final URL.")
        except BaseException:
            reply.close()
            raise
        return read_external_reply(reply, self.entry, self.options.reply_path, splits_whole=request.is_streamed)

    def _to_headers(self, context: CallContext, *, is_streamed: bool) -> dict[str, str]:
        return {
            **{name: value for name, value in context.headers.items() if not name.startswith(OPENAIS_HEADERS)},
            "content-type": "application/json",
            "accept": ACCEPT_STREAM if is_streamed else ACCEPT,
            **self._headers,
        }

    def _to_body(self, request: ChatRequest, *, is_streamed: bool) -> bytes:
        body: dict[str, Any] = {
            "model": self.entry.upstream_model or self.name,
            "messages": request.messages,
            "stream": is_streamed,
            **request.parameters,
        }
        return json.dumps(body).encode()
