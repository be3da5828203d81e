"""Any chat API behind a URL: the conversation goes out as JSON, and whatever comes back is read as an answer.

Where the row declares nothing, `stop`, `max_tokens` and `max_completion_tokens` are passed on and count as kept: an API
that takes them keeps them, one that does not know them could not be told otherwise. Sampling hints and unknown
parameters are passed on too. The rest of the promises (tools, `n`, `logprobs`, `response_format`, ...) change the
answer's shape, and an API of unknown shape cannot be held to them: they are refused. Where the row declares `request`,
it keeps what that uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamError, UpstreamInvalidResponseError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from openai_compat.core.validators import is_header_value

from .body_reader import BodyFormat, Reader, read_external_reply
from .declaration import Format, parse_declaration
from .declared_errors import ErrorReader
from .declared_reader import DeclaredReader
from .errors import read_beginning, to_external_error, to_undeclared_error
from .heuristic_reader import HeuristicReader
from .request_writer import PASSED_ON, RequestWriter

ACCEPT: Final = "application/json, text/plain;q=0.9, */*;q=0.8"
OPENAIS_HEADERS: Final = "openai-"
"""The beginning of the headers that tell OpenAI of the caller's account there: `openai-organization` and the like."""
ACCEPT_STREAM: Final = "text/event-stream, application/x-ndjson;q=0.9, application/json;q=0.8, */*;q=0.7"
ID_HEADER: Final = "x-openai-compat-id-"
"""Before the name that the row has for one of the reply's ids."""
FORMS: Final[Mapping[Format, BodyFormat | None]] = {
    "auto": None, "json": "json", "text": "text", "sse": "events", "ndjson": "lines"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExternalOptions:
    """`reply_path` says where the text is in the API's JSON (`data.answers.0.text`); without it, it is searched for.
    `stream: false` never asks the API to stream: its answers are streamed to the client token by token all the same.
    `request`, `reply` and `errors` declare an API of another form (`adapter.py`).
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
    """Posts `{"model", "messages", "stream", ...parameters}` to the entry's URL, or what its row declares.

    The client's own `Authorization` stays here, and so does what it says of an account at OpenAI: they were meant for
    this server or for OpenAI, and the API's owner is someone else.
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
        self.supported_chat_parameters = self.writer.promises  # type: ignore[misc]  # each row declares its own
        self.errors = ErrorReader(entry, adapter.errors) if adapter.errors else None
        self._headers = {name.lower(): value for name, value in entry.headers.items()}
        if entry.api_key:
            self._headers.setdefault("authorization", f"Bearer {entry.api_key}")

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterable[str]:
        _, problems = parse_declaration(entry, options)
        if options.reply is not None and options.reply_path is not None:
            problems.append("reply_path and reply both say where the text is: keep one")
        return problems

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta | Heartbeat]:
        """The answer; returns when the reply's headers have come and are no error. Its iterator raises what
        `read_external_reply` does.

        Raises:
            UnsupportedParameterError, PayloadError: the request has what the declared call cannot say.
            UpstreamAuthenticationError: the API wants another credential than this server's.
            UpstreamStatusError, UpstreamError: the API answered with an error.
            UpstreamReplyError: it sends the call elsewhere.
            UpstreamConnectionError, UpstreamTimeoutError, CallCancelledError
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
        )
        try:
            if reply.status >= 400:
                raise self.to_error(reply.status, read_beginning(reply), reply.headers)
            if reply.status >= 300:
                raise UpstreamInvalidResponseError(
                    f"The external API redirects ({reply.status}): configure its final URL."
                )
        except BaseException:
            reply.close()
            raise
        return self.read(reply, context, splits_whole=request.is_streamed)

    def read(
        self, reply: UpstreamResponse, context: CallContext, *, splits_whole: bool
    ) -> Iterator[ChatDelta | Heartbeat]:
        """The answer in a reply of status 200."""
        declaration = self.adapter.reply
        form = FORMS[declaration.format] if declaration else None
        return read_external_reply(reply, self.make_reader(context), form, splits_whole=splits_whole)

    def to_error(self, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
        """The error that a reply of status 400 or more stands for, by the beginning of its body."""
        if self.errors is not None:
            return self.errors.to_error(status, body, headers)
        return to_undeclared_error(self.entry, status, body, headers)

    def make_reader(self, context: CallContext) -> Reader:
        """What reads one answer."""
        to_error = self.errors.to_error if self.errors else partial(to_external_error, self.entry)
        if self.adapter.reply is None:
            return HeuristicReader(self.options.reply_path, to_error)
        note_id = partial(_note_id, context.reply_headers)
        return DeclaredReader(self.adapter.reply, self.adapter.errors, to_error, note_id)

    def to_headers(self, own: Mapping[str, str], context: CallContext, *, is_streamed: bool) -> dict[str, str]:
        """The headers of a call: the client's that may travel on, the declared ones over them, the row's over those."""
        return {
            **{name: value for name, value in context.headers.items() if not name.startswith(OPENAIS_HEADERS)},
            "accept": ACCEPT_STREAM if is_streamed else ACCEPT,
            **own,
            **self._headers,
        }


def _note_id(headers: dict[str, str], name: str, value: str) -> None:
    """An id of the reply goes into the answer's headers; for a stream, those that come with its first piece do."""
    if is_header_value(value):
        headers[f"{ID_HEADER}{name}"] = value
