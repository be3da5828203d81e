"""`POST /ask`: the door of a chat page in a browser: takes the page's messages as they are, and streams the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, request

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.settings import Settings
from openai_compat.core.streams import BackgroundStart
from openai_compat.core.types import CallContext
from openai_compat.routing.failover import FailoverExecutor
from openai_compat.routing.route import Target
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.ai_sdk_messages import to_chat_messages
from openai_compat.services.chat import ChatAnswer, ChatService
from openai_compat.services.failover_streams import FailoverChat
from openai_compat.services.openai_objects import new_id
from openai_compat.web.deferred import deferred_response, start_or_defer
from openai_compat.web.errors import to_known_error
from openai_compat.web.failover import add_route_headers
from openai_compat.web.inference import choose_route, read_payload
from openai_compat.web.request_context import current_context
from openai_compat.web.schemas.ask import GENERATION_OPTIONS, AskRequestSchema
from openai_compat.web.sse import StreamBody, stream_response

from .encoders import SSEEncoder, StreamEncoder, TextEncoder, UIMessageEncoder, to_blocks
from .errors import to_ask_response

FORMATS: Final = ("sse", "text", "ui")


def ask_blueprint(routing: ModelRouter, chats: ChatService, settings: Settings) -> Blueprint:
    """`POST /ask`, with errors of its own shape: the assistant says what went wrong."""
    blueprint = Blueprint("ask", __name__)
    schema = AskRequestSchema()

    @blueprint.post("/ask")
    def ask() -> Response:
        _, payload = read_payload(schema)
        writer = to_writer(negotiate_format(payload, settings.ask_stream_format), payload)
        return answer(routing, chats, payload, writer)

    @blueprint.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        return to_ask_response(to_known_error(error))

    return blueprint


def answer(routing: ModelRouter, chats: ChatService, payload: Mapping[str, Any], writer: StreamEncoder) -> Response:
    """The streamed answer; an error before its first piece is raised, one after it is told in the stream."""
    wanted = {name: value for name, value in payload.items() if name in GENERATION_OPTIONS}
    chat = {**wanted, "messages": to_chat_messages(payload["messages"]), "stream": True}
    route = choose_route(routing, payload.get("model"), {**payload, **chat})
    call = current_context()
    call.log_fields.update(model=route.model, kind=route.entry.kind)
    context = call.to_context(is_streamed=writer.supports_comments)

    def ask(target: Target | Route, context: CallContext) -> ChatAnswer:
        return chats.start(target.backend, target.model, chat, context)

    def start() -> ChatAnswer | FailoverChat:
        if route.plan is None:
            return ask(route, context)
        failover: FailoverExecutor[ChatAnswer] = FailoverExecutor(route.plan, context, limits_first_token=True)
        try:
            return FailoverChat(failover.run(ask))
        finally:
            add_route_headers(call, failover)

    def to_stream(started: ChatAnswer | FailoverChat) -> Any:
        return to_blocks(writer, started.deltas(), context.heartbeat_interval)

    started = start_or_defer(start, context)
    to_error = writer.to_error if writer.supports_errors else None
    if isinstance(started, BackgroundStart):
        return deferred_response(call, context, started, to_stream, headers=writer.headers, to_error=to_error)
    return stream_response(StreamBody(call, to_stream(started), started, to_error=to_error), writer.headers)


def negotiate_format(payload: Mapping[str, Any], default: str) -> str:
    """How the caller wants the answer.

    Its query says so, else its `Accept`, else the shape of its messages, else the setting. Pages of the AI SDK send
    `Accept: */*`, and `axios` names `text/plain` beside it: what is accepted no less than everything else is no wish.

    Raises:
        PayloadError: a `format` that there is not.
    """
    wish = request.args.get("format")
    if wish:
        if wish not in FORMATS:
            raise InvalidRequestError(
                f"Unknown format: '{wish[:40]}'. It must be one of {', '.join(FORMATS)}.", param="format"
            )
        return wish
    has_parts = any(message.get("parts") for message in payload["messages"])
    events, text = (request.accept_mimetypes.quality(kind) for kind in ("text/event-stream", "text/plain"))
    if events > text:
        return "ui" if has_parts else "sse"
    if text > events or _is_version_4(payload):
        return "text"
    return "ui" if has_parts else default


def _is_version_4(payload: Mapping[str, Any]) -> bool:
    """Whether version 4 of the AI SDK asks, which cannot read `ui`, invented with version 5.

    It names the conversation (`id`), knows no `trigger`, and sends every text twice, as `content` and in `parts`
    (source: `useChat` in the npm package `@ai-sdk/react`, version 1).
    """
    last = payload["messages"][-1]
    return (
        isinstance(last.get("content"), str)
        and bool(last.get("parts"))
        and "id" in payload
        and "trigger" not in payload
    )


def to_writer(name: str, payload: Mapping[str, Any]) -> StreamEncoder:
    """What writes one answer in the format `name`."""
    if name == "ui":
        return UIMessageEncoder(_message_id(payload["messages"][-1]))
    return TextEncoder() if name == "text" else SSEEncoder()


def _message_id(last: Mapping[str, Any]) -> str:
    """The name of the answer in the page: an assistant's last message goes on, after its tools have been called
    (source: `getResponseUIMessageId` in the npm package `ai`)."""
    identifier = last.get("id")
    return identifier if last["role"] == "assistant" and isinstance(identifier, str) and identifier else new_id("msg_")
