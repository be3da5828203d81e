"""Reverse proxy for all other endpoints of OpenAI's API (files, images, audio, batches, ...).

It forwards any method and body, streamed in both directions.
"""

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
    """Return the blueprint of all paths without an endpoint of this server."""
    blueprint = Blueprint("passthrough", __name__)

    @blueprint.route("/<path:path>", methods=METHODS)
    def proxy(path: str) -> Response:
        request.max_content_length = settings.max_upload_bytes
        context = current_context()
        call_context = context.to_call_context(is_streamed=True)
        headers = dict(call_context.headers)
        if request.content_type:
            headers["content-type"] = request.content_type
        body = _read_body(request)
        forwarded = UpstreamRequest(request.method, _raw_path(path), headers, body, request.content_length)
        reply, reply_body = pass_through(upstream, forwarded, call_context)
        if reply.status >= 400 or reply.status in NO_BODY_STATUSES or request.method == "HEAD":
            return _complete_response(reply)
        return _streamed_response(reply, reply_body, context)

    return blueprint


def _complete_response(reply: UpstreamResponse) -> Response:
    """Return the response for an error, in OpenAI's envelope, or for a reply without a body."""
    try:
        answer = to_answer(reply, reply.read(), FILE_HEADERS)
    finally:
        reply.close()
    response = BytesResponse(answer.body, answer.status, answer.headers)
    if reply.status in NO_BODY_STATUSES:
        response.headers.remove("content-length")
    return response


def _streamed_response(reply: UpstreamResponse, body: ForwardedBody, context: RequestContext) -> Response:
    """Return the response that relays the body.

    If the upstream fails within it, the connection is closed, because the content type may not support errors.
    """
    headers = {
        "content-type": "application/octet-stream",
        **response_headers(reply.headers, FILE_HEADERS),
        "x-accel-buffering": "no",
    }
    source = _ProxyBody(body)
    comment = COMMENT if headers["content-type"].startswith("text/event-stream") else b""
    stream = StreamBody(context, source, source, StreamFormat(headers, comment, to_error=None), reply.status)
    return Response(stream, reply.status, headers, direct_passthrough=True)


def _raw_path(path: str) -> str:
    """Return the path below the prefix and the query, with the client's percent-encoding."""
    check_path(path)
    raw: str = request.environ.get("RAW_URI", "").partition("?")[0]
    starts = (index + 1 for index, character in enumerate(raw) if character == "/")
    encoded = next(
        (raw[start:] for start in starts if unquote(raw[start:]) == path), quote(path, safe="/:@!$&'()*+,;=~")
    )
    query = request.environ.get("QUERY_STRING", "")
    return f"{encoded}?{query}" if query else encoded


def check_path(path: str) -> None:
    """Reject a path that leaves the root of the upstream's API, however it is encoded.

    The request to the upstream has this server's key, so that such a path could reach other services of that host.

    Raises:
        NotFoundError: the path has a segment `.` or `..`.
    """
    while (decoded := unquote(path)) != path:
        path = decoded
    if any(segment in {".", ".."} for segment in path.replace("\\", "/").split("/")):
        raise NotFoundError(f"Invalid URL ({request.method} {request.path})")


def _read_body(request: Request) -> Iterator[bytes] | None:
    """Return the request body in blocks, or None if there is no body. It is never held in memory as a whole."""
    if not request.content_length and request.headers.get("Transfer-Encoding", "") == "":
        return None
    return _read_blocks(request.stream)


def _read_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(READ_BYTES)
        except HTTPException:
            raise
        except Exception as error:  # every WSGI server has its own exceptions
            raise InvalidRequestError("The request body could not be read.") from error
        if not block:
            return
        yield block


class _ProxyBody(Iterator["bytes | Heartbeat"]):
    """Bytes of a reply. Heartbeats are passed on between two events only, as one within an event would break it."""

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
