"""Everything else of OpenAI's API: files, images, audio, batches, ...; any method and body, streamed both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

from flask import Blueprint, Request, Response, request

from ..backends.base import ForwardedCall, SupportsForwarding
from ..domain import Usage
from ..errors import NotFoundError
from ..services.forwarding import FILE_HEADERS, ForwardedBody, pass_through, relayed_headers, to_answer
from ..settings import Settings
from ..streams import Silence
from .calls import current_call
from .responses import WholeResponse
from .sse import COMMENT, StreamBody

READ_BYTES: Final = 65_536
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def passthrough_blueprint(upstream: SupportsForwarding, settings: Settings) -> Blueprint:
    """`{root}/<anything>`, where no door of this server's own is."""
    blueprint = Blueprint("passthrough", __name__)

    @blueprint.route("/<path:path>", methods=METHODS)
    def pass_on(path: str) -> Response:
        call = current_call()
        request.max_content_length = settings.max_upload_bytes
        context = call.to_context(is_streamed=request.accept_mimetypes.best == "text/event-stream")
        headers = dict(context.headers)
        if request.content_type:
            headers["content-type"] = request.content_type
        body = _read_body(request)
        forwarded = ForwardedCall(request.method, _raw_path(path), headers, body, request.content_length)
        reply, answer_body = pass_through(upstream, forwarded, context)
        if reply.status >= 400:
            try:
                answer = to_answer(reply, reply.read())
            finally:
                reply.close()
            return WholeResponse(answer.body, answer.status, answer.headers)
        # A body that breaks off breaks the connection: its type may have no place for an error.
        source = _Passing(answer_body)
        is_stream = reply.headers.get("content-type", "").startswith("text/event-stream")
        stream = StreamBody(call, source, source, comment=COMMENT if is_stream else b"", to_error=None)
        response = Response(stream, reply.status, relayed_headers(reply.headers, FILE_HEADERS), direct_passthrough=True)
        response.headers["X-Accel-Buffering"] = "no"
        return response

    return blueprint


def _raw_path(path: str) -> str:
    """The path below the root, with its query, escaped as the client escaped it."""
    if any(part in {".", ".."} for part in unquote(path).split("/")):
        raise NotFoundError(f"Invalid URL ({request.method} {request.path})")
    raw: str = request.environ.get("RAW_URI", "").partition("?")[0]
    starts = (at + 1 for at, character in enumerate(raw) if character == "/")
    escaped = next((raw[at:] for at in starts if unquote(raw[at:]) == path), quote(path, safe="/:@!$&'()*+,;=~"))
    query = request.environ.get("QUERY_STRING", "")
    return f"{escaped}?{query}" if query else escaped


def _read_body(request: Request) -> Iterator[bytes] | None:
    """The body in blocks, none of it held for longer than it takes to send it on."""
    if not request.content_length and request.headers.get("Transfer-Encoding", "") == "":
        return None
    stream = request.stream
    return iter(lambda: stream.read(READ_BYTES), b"")


class _Passing(Iterator["bytes | Silence"]):
    """The bytes of an answer. Silence between two events can be filled, silence within one cannot."""

    usage: Usage | None = None

    def __init__(self, body: ForwardedBody) -> None:
        self._body = body
        self._is_between_events = True

    def __next__(self) -> bytes | Silence:
        block = next(self._body)
        if isinstance(block, Silence):
            return block if self._is_between_events else b""
        self._is_between_events = block.endswith((b"\n\n", b"\r\n\r\n"))
        return block

    def close(self) -> None:
        self._body.close()
