"""Backend for any HTTP chat API, which posts the conversation as JSON and reads the reply as an answer.

Without a `request` declaration, `stop`, `max_tokens` and `max_completion_tokens` are passed on and count as supported,
because there is no way to find out whether the API honours them. Sampling parameters and unknown parameters are passed
on too. Parameters that change the shape of the answer (`n`, `logprobs`, `response_format`, ...) are refused, because
the shape is unknown, and the service drops or emulates tools. With a `request` declaration, the parameters that it uses
are supported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.answer_format import NO_CONTENT
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamError, UpstreamInvalidResponseError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.redaction import Redactor
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from openai_compat.core.validators import is_header_value

from .body_reader import BodyFormat, ReplyReader, read_body
from .declaration import Format, parse_declaration
from .declared_errors import ErrorReader
from .declared_reader import DeclaredReader
from .errors import read_error_body, to_external_error, to_undeclared_error
from .heuristic_reader import HeuristicReader
from .request_writer import PASSED_ON, RequestWriter

ACCEPT: Final = "application/json, text/plain;q=0.9, */*;q=0.8"
ACCEPT_STREAM: Final = "text/event-stream, application/x-ndjson;q=0.9, application/json;q=0.8, */*;q=0.7"
OPENAI_HEADER_PREFIX: Final = "openai-"
"""Prefix of the client headers that name an account at OpenAI, such as `openai-organization`."""
ID_HEADER_PREFIX: Final = "x-openai-compat-id-"
"""Prefix of the response headers for the ids that `reply.ids` declares."""
BODY_FORMATS: Final[Mapping[Format, BodyFormat | None]] = {
    "auto": None, "json": "json", "text": "text", "sse": "events", "ndjson": "lines"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExternalOptions:
    """Options of a model of kind `external`.

    `reply_path` is the path of the text in the API's JSON, such as `data.answers.0.text`. Without it, the text is
    searched for. `stream: false` never requests a stream from the API, and its answers are still streamed to the client
    token by token. `request`, `reply` and `errors` declare an API of another form (`declaration.py`).
    """

    reply_path: str | None = None
    stream: bool = True
    request: Mapping[str, Any] | None = None
    reply: Mapping[str, Any] | None = None
    errors: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        path = self.reply_path
        if path is not None and not (isinstance(path, str) and all(path.split("."))):
            raise ValueError("reply_path must be names and numbers joined by dots, such as data.answers.0.text")
        if not isinstance(self.stream, bool):
            raise ValueError("stream must be true or false")


class ExternalBackend(Backend, SupportsChat):
    """Backend that sends `{"model", "messages", "stream", ...parameters}`, or what the model config declares.

    The client's `Authorization` and its OpenAI account headers are not forwarded. They are meant for this server or for
    OpenAI, and the external API belongs to a third party.
    """

    Options = ExternalOptions
    takes_variables = True
    supported_chat_parameters = PASSED_ON

    def __init__(self, entry: ModelConfig, options: ExternalOptions, resources: BackendResources) -> None:
        adapter, problems = parse_declaration(entry, options)
        if problems or not (entry.base_url or (adapter.request and adapter.request.url)):
            raise ValueError(f"model '{entry.name}': {problems[0] if problems else 'kind external needs a base_url'}")
        super().__init__(entry, options, resources)
        self._limiter = resources.limiter_for(entry)
        self.adapter = adapter
        self.writer = RequestWriter(entry, adapter.request)
        self.supported_chat_parameters = self.writer.supported_parameters  # type: ignore[misc]  # depends on the config
        self.errors = ErrorReader(entry, adapter.errors) if adapter.errors else None
        self._headers = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key:
            self._headers.setdefault("authorization", f"Bearer {entry.api_key}")

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterable[str]:
        adapter, problems = parse_declaration(entry, options)
        if options.reply is not None and options.reply_path is not None:
            problems.append("reply_path and reply both declare the path of the text: remove one of them")
        adapted = [name for name in ("tools", "response_format") if getattr(entry, name) == "prompt"]
        if adapted and adapter.request and not RequestWriter(entry, adapter.request).sends_whole_prompt:
            problems.append(f"{adapted[0]}: prompt needs a request with the system prompt and the conversation")
        return problems

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """Send the request and return the deltas of the reply, once its headers arrived and are not an error.

        The iterator raises what `read_body` raises.

        Raises:
            UnsupportedParameterError, InvalidRequestError: the declared request cannot express the client's request.
            UpstreamAuthenticationError: the API refused this server's credential.
            UpstreamStatusError, UpstreamError: the API answered with an error.
            UpstreamInvalidResponseError: the API answered with a redirect.
            UpstreamConnectionError, UpstreamTimeoutError, CallCancelledError: the request failed.
        """
        is_streamed = request.is_streamed and self.options.stream
        outgoing = self.writer.write(request, is_streamed=is_streamed)
        record_adaptations(outgoing.dropped, context.reply_headers)
        reply = self.resources.http_client.send(
            outgoing.method,
            outgoing.url,
            headers=self.to_headers(outgoing.headers, context, is_streamed=is_streamed),
            timeouts=self.entry.timeouts,
            context=context,
            body=outgoing.body,
            limiter=self._limiter,
            redactor=self.redactor,
        )
        try:
            if reply.status >= 400:
                raise self.to_error(reply.status, read_error_body(reply), reply.headers)
            if reply.status in NO_CONTENT:
                raise UpstreamInvalidResponseError(
                    f"The external API answered with status {reply.status}, which has no content."
                )
            if reply.status >= 300:
                raise UpstreamInvalidResponseError(
                    f"The external API redirects (status {reply.status}). Configure its final URL."
                )
        except BaseException:
            reply.close()
            raise
        return self.read(reply, context, simulate_stream=request.is_streamed)

    def read(
        self, reply: UpstreamResponse, context: CallContext, *, simulate_stream: bool
    ) -> Iterator[ChatDelta | Heartbeat]:
        """Return the deltas of a reply of status 200."""
        declaration = self.adapter.reply
        body_format = BODY_FORMATS[declaration.format] if declaration else None
        return read_body(reply, self.make_reader(context), body_format, simulate_stream=simulate_stream)

    def to_error(self, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
        """Return the exception for a reply of status 400 or more. `body` is the beginning of the body."""
        if self.errors is not None:
            return self.errors.to_error(status, body, headers)
        return to_undeclared_error(self.entry, status, body, headers)

    def make_reader(self, context: CallContext) -> ReplyReader:
        """Return a new reader for one reply."""
        to_error = self.errors.to_error if self.errors else partial(to_external_error, self.entry)
        if self.adapter.reply is None:
            return HeuristicReader(self.options.reply_path, to_error)
        record_id = partial(_record_id, context.reply_headers, self.redactor)
        return DeclaredReader(self.adapter.reply, self.adapter.errors, to_error, record_id)

    def to_headers(self, declared: Mapping[str, str], context: CallContext, *, is_streamed: bool) -> dict[str, str]:
        """Return the request headers. Declared ones override the client's, and the model config's override both."""
        return {
            **{name: value for name, value in context.headers.items() if not name.startswith(OPENAI_HEADER_PREFIX)},
            "accept": ACCEPT_STREAM if is_streamed else ACCEPT,
            **declared,
            **self._headers,
        }


def _record_id(headers: dict[str, str], redactor: Redactor, name: str, value: str) -> None:
    """Add an id of the reply to the response headers. Of a stream, only ids before the first delta arrive in time."""
    if is_header_value(value):
        headers[f"{ID_HEADER_PREFIX}{name}"] = redactor.mask(value)
