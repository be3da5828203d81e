"""The `POST /ask` endpoint, which takes a chat page's messages as they are and streams the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, request

from openai_compat.backends.parameter_checks import check_roles
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.settings import Settings
from openai_compat.core.types import CallContext
from openai_compat.routing.route import Target
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.ai_sdk_messages import to_chat_messages
from openai_compat.services.chat import ChatService
from openai_compat.services.continuation import Continuation
from openai_compat.services.event_stream import EventStream
from openai_compat.services.inference import Endpoint, TranslatedStream, read_deltas
from openai_compat.services.inference_call import CHAT_PATH, InferenceCall
from openai_compat.services.openai_objects import new_id
from openai_compat.web.errors import to_final_error
from openai_compat.web.inference import choose_route, read_payload, respond_to_call
from openai_compat.web.schemas.ask import GENERATION_OPTIONS, AskRequestSchema
from openai_compat.web.sse import StreamFormat, to_comment

from .encoders import SSEEncoder, StreamEncoder, TextEncoder, UIMessageEncoder, encode_answer
from .errors import to_ask_response

FORMATS: Final = ("sse", "text", "ui")


def ask_blueprint(router: ModelRouter, chats: ChatService, settings: Settings) -> Blueprint:
    """`POST /ask`. Its errors have the shape of an assistant's message."""
    blueprint = Blueprint("ask", __name__)
    schema = AskRequestSchema()

    @blueprint.post("/ask")
    def ask() -> Response:
        _, payload = read_payload(schema)
        encoder = to_encoder(negotiate_format(payload, settings.ask_stream_format), payload)
        return answer(router, chats, payload, encoder)

    @blueprint.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        return to_ask_response(to_final_error(error))

    return blueprint


class AskEndpoint(Endpoint):
    """Chat answers in one of the page's formats, translated from any backend that can chat."""

    path = CHAT_PATH
    is_forwarded = False

    def __init__(self, chats: ChatService, encoder: StreamEncoder) -> None:
        self._chats = chats
        self._encoder = encoder

    def count_tokens(self, text: str, model: str) -> int:
        return self._chats.tokens.count(text, model)

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> EventStream:
        chat = call.payload if continuation is None else continuation.to_request(call.payload, target.model)
        answer = self._chats.start(target.backend, target.model, chat, context)
        deltas = read_deltas(answer, continuation)
        return TranslatedStream(answer, encode_answer(self._encoder, deltas, context.heartbeat_interval))


def answer(router: ModelRouter, chats: ChatService, payload: Mapping[str, Any], encoder: StreamEncoder) -> Response:
    """Stream the answer. An error before its first delta is raised, a later one is reported in the stream."""
    options = {name: value for name, value in payload.items() if name in GENERATION_OPTIONS}
    messages = to_chat_messages(payload["messages"])
    check_roles(messages)
    chat = {**options, "messages": messages, "stream": True}
    route = choose_route(router, payload.get("model"), {**payload, **chat})
    stream_format = StreamFormat(
        encoder.headers,
        keep_alive=to_comment if encoder.supports_comments else None,
        to_error=encoder.to_error if encoder.supports_errors else None,
    )
    call = InferenceCall(CHAT_PATH, b"", chat, route.model)
    return respond_to_call(AskEndpoint(chats, encoder), route, call, stream_format)


def negotiate_format(payload: Mapping[str, Any], default: str) -> str:
    """Return the format of the answer.

    It is the query's `format`, else that of the `Accept` header, else that of the messages' shape, else the setting's.
    A media type that `Accept` ranks no higher than others is no preference: pages of the AI SDK send `Accept: */*`, and
    `axios` adds `text/plain`.

    Raises:
        InvalidRequestError: the query names an unknown format.
    """
    requested = request.args.get("format")
    if requested:
        if requested not in FORMATS:
            raise InvalidRequestError(
                f"Unknown format: '{requested[:40]}'. It must be one of {', '.join(FORMATS)}.", param="format"
            )
        return requested
    has_parts = any(message.get("parts") for message in payload["messages"])
    events, text = (request.accept_mimetypes.quality(kind) for kind in ("text/event-stream", "text/plain"))
    if events > text:
        return "ui" if has_parts else "sse"
    if text > events or _is_version_4(payload):
        return "text"
    return "ui" if has_parts else default


def _is_version_4(payload: Mapping[str, Any]) -> bool:
    """Return True if the client is version 4 of the AI SDK, which cannot read `ui`.

    It sends the conversation's `id`, no `trigger`, and every text twice, as `content` and in `parts` (source: `useChat`
    in the npm package `@ai-sdk/react`, version 1).
    """
    last = payload["messages"][-1]
    return (
        isinstance(last.get("content"), str)
        and bool(last.get("parts"))
        and "id" in payload
        and "trigger" not in payload
    )


def to_encoder(name: str, payload: Mapping[str, Any]) -> StreamEncoder:
    """Return the encoder of one answer in the format `name`."""
    if name == "ui":
        return UIMessageEncoder(_message_id(payload["messages"][-1]))
    return TextEncoder() if name == "text" else SSEEncoder()


def _message_id(last: Mapping[str, Any]) -> str:
    """Return the id of the answer in the page.

    An answer after tool calls continues the assistant's last message (source: `getResponseUIMessageId` in the npm
    package `ai`).
    """
    identifier = last.get("id")
    return identifier if last["role"] == "assistant" and isinstance(identifier, str) and identifier else new_id("msg_")
