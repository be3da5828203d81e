"""Everything else of OpenAI's API: files, images, audio, batches, ...; any method and body, streamed both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final
from urllib.parse import quote, unquote

from flask import Blueprint, Request, Response, request
from werkzeug.exceptions import HTTPException

from openai_compat.backends.base import SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.core.errors import InvalidRequestError, NotFoundError
from openai_compat.core.settings import Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.forwarding import FILE_HEADERS, ForwardedBody, pass_through, response_headers, to_answer
from openai_compat.web.request_context import RequestContext, current_context
from openai_compat.web.responses import BytesResponse
from openai_compat.web.sse import COMMENT, StreamBody, StreamFormat

READ_BYTES: Final = 65_536
NO_BODY_STATUSES: Final = frozenset({204, 304})
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def passthrough_blueprint(upstream: SupportsForwarding, settings: Settings) -> Blueprint:
    """`{root}/<anything>`, where no door of this server's own is."""
    blueprint = Blueprint("passthrough", __name__)

    @blueprint.route("/<path:path>", methods=METHODS)
    def proxy(path: str) -> Response:
        request.max_content_length = settings.max_upload_bytes
        call = current_context()
        context = call.to_context(is_streamed=True)
        headers = dict(context.headers)
        if request.content_type:
            headers["content-type"] = request.content_type
        body = _read_body(request)
        forwarded = UpstreamRequest(request.method, _raw_path(path), headers, body, request.content_length)
        reply, answer_body = pass_through(upstream, forwarded, context)
        if reply.status >= 400 or reply.status in NO_BODY_STATUSES or request.method == "HEAD":
            return _whole(reply)
        return _streamed(reply, answer_body, call)

    return blueprint


def _whole(reply: UpstreamResponse) -> Response:
    """An error, in the envelope, or an answer that is nothing but its head."""
    try:
        answer = to_answer(reply, reply.read(), FILE_HEADERS)
    finally:
        reply.close()
    response = BytesResponse(answer.body, answer.status, answer.headers)
    if reply.status in NO_BODY_STATUSES:
        response.headers.remove("content-length")
    return response


def _streamed(reply: UpstreamResponse, body: ForwardedBody, call: RequestContext) -> Response:
    """An answer as it comes. One that breaks off breaks the connection: its type may have no place for an error."""
    headers = {
        "content-type": "application/octet-stream",
        **response_headers(reply.headers, FILE_HEADERS),
        "x-accel-buffering": "no",
    }
    source = _ProxyBody(body)
    comment = COMMENT if headers["content-type"].startswith("text/event-stream") else b""
    stream = StreamBody(call, source, source, StreamFormat(headers, comment, to_error=None), reply.status)
    return Response(stream, reply.status, headers, direct_passthrough=True)


def _raw_path(path: str) -> str:
    """The path below the root, with its query, escaped as the client escaped it."""
    check_path(path)
    raw: str = request.environ.get("RAW_URI", "").partition("?")[0]
    starts = (at + 1 for at, character in enumerate(raw) if character == "/")
    escaped = next((raw[at:] for at in starts if unquote(raw[at:]) == path), quote(path, safe="/:@!$&'()*+,;=~"))
    query = request.environ.get("QUERY_STRING", "")
    return f"{escaped}?{query}" if query else escaped


def check_path(path: str) -> None:
    """Nothing that leads out of the API's root goes to an upstream, with this server's key, however it is escaped.

    Raises:
        NotFoundError
    """
    while (plain := unquote(path)) != path:
        path = plain
    if any(part in {".", ".."} for part in path.replace("\\", "/").split("/")):
        raise NotFoundError(f"Invalid URL ({request.method} {request.path})")


def _read_body(request: Request) -> Iterator[bytes] | None:
    """The body in blocks, none of it held for longer than it takes to send it on."""
    if not request.content_length and request.headers.get("Transfer-Encoding", "") == "":
        return None
    return _blocks(request.stream)


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(READ_BYTES)
        except HTTPException:
            raise
        except Exception as error:  # each WSGI server has exceptions of its own for it
            raise InvalidRequestError("The request body could not be read.") from error
        if not block:
            return
        yield block


class _ProxyBody(Iterator["bytes | Heartbeat"]):
    """The bytes of an answer. Silence between two events can be filled, silence within one cannot."""

    usage: Usage | None = None

    def __init__(self, body: ForwardedBody) -> None:
        self._body = body
        self._is_between_events = True

    def __next__(self) -> bytes | Heartbeat:
        block = next(self._body)
        if isinstance(block, Heartbeat):
            return block if self._is_between_events else b""
        self._is_between_events = block.endswith((b"\n\n", b"\r\n\r\n"))
        return block

    def close(self) -> None:
        self._body.close()
