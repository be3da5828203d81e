"""The Messages API for every model that can chat."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from openai_compat.backends.base import SupportsChat, capabilities_of, missing_capability
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.types import JSON, CallContext
from openai_compat.routing.route import Target
from openai_compat.routing.router import Route
from openai_compat.services.chat import ChatAnswer, ChatService, complete_deltas
from openai_compat.services.continuation import Continuation
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.inference import Answer, Endpoint, TranslatedStream, read_deltas
from openai_compat.services.inference_call import MESSAGES_PATH, InferenceCall
from openai_compat.services.openai_objects import to_json_in_turns
from openai_compat.services.prompt_tokens import count_prompt, estimate_prompt

from .blocks import Content
from .events import EventWriter, encode_message
from .native import forward_count, forward_message, may_forward
from .objects import new_message, to_usage
from .request import TranslatedRequest, translate_request

CONTENT_DEPTH = 2
"""Levels from the message down to one block."""
COUNT_PATH = "messages/count_tokens"
HEADER_PREFIX = "anthropic-"
"""Beginning of the names of headers with the version and the features of Anthropic's protocol."""


class MessagesEndpoint(Endpoint):
    """One call of the Messages API, which several targets may be asked in turn."""

    path = MESSAGES_PATH
    is_forwarded = False

    def __init__(self, chats: ChatService, call: InferenceCall) -> None:
        self._chats = chats
        self._call = call

    def count_tokens(self, text: str, model: str) -> int:
        return self._chats.tokens.count(text, model)

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> Answer:
        is_resumed = continuation is not None and continuation.is_resumed
        if may_forward(target.backend) and not is_resumed:
            return forward_message(target.backend, call.for_model(target.model), context)
        chat = self._chat_for(target, context, continuation)
        answer = self._chats.start(target.backend, target.model, chat, _without_protocol(context))
        if call.is_streamed:
            deltas = read_deltas(answer, continuation)
            events = encode_message(self._message, self._writer, answer, deltas, context.heartbeat_interval)
            return TranslatedStream(answer, events)
        try:
            complete = {**self._message, **self._collect(answer)}
            return CompleteAnswer(200, {}, to_json_in_turns(complete, CONTENT_DEPTH), answer.usage)
        finally:
            answer.close()

    def _chat_for(self, target: Target | Route, context: CallContext, continuation: Continuation | None) -> JSON:
        """Return the chat payload for one target, which may be asked for the rest of an answer.

        Raises:
            RequestError
        """
        request, sent = self._request, 0
        if continuation is not None:
            request = replace(request, chat=continuation.to_request(request.chat, target.model))
            sent = continuation.sent_tokens(target.model)
        chat, adaptations = request.for_backend(target.backend, target.model, self._input_tokens, sent)
        record_adaptations({**request.adaptations, **adaptations}, context.reply_headers)
        return chat

    @cached_property
    def _message(self) -> JSON:
        """The message as it begins."""
        return new_message(self._call.model, self._input_tokens)

    @cached_property
    def _writer(self) -> EventWriter:
        """The writer of the events, which is the same for all targets that answer a part."""
        return EventWriter(self._request.tools, self._request.stop_sequences)

    @cached_property
    def _request(self) -> TranslatedRequest:
        """The chat call, which is the same for all targets but for its limit.

        Raises:
            RequestError
        """
        return translate_request(self._call.payload)

    @cached_property
    def _input_tokens(self) -> int:
        """An estimate of the prompt's tokens, for clients that show them before the answer has ended."""
        return estimate_prompt(self._request.chat)

    def _collect(self, answer: ChatAnswer) -> dict[str, object]:
        """Return the fields of a complete message that come from the model."""
        content = Content(self._request.tools, self._request.stop_sequences)
        for delta in complete_deltas(answer):
            content.add(delta)
        return {"content": content.to_objects(), **content.to_ending(), "usage": to_usage(answer.final_usage())}


def _without_protocol(context: CallContext) -> CallContext:
    """Return the context without the headers about Anthropic's protocol, which a chat upstream must not get."""
    headers = {name: value for name, value in context.headers.items() if not name.startswith(HEADER_PREFIX)}
    return replace(context, headers=headers)


class TokensEndpoint(Endpoint):
    """`POST /messages/count_tokens`."""

    path = COUNT_PATH
    is_forwarded = False

    def __init__(self, chats: ChatService) -> None:
        self._chats = chats

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> CompleteAnswer:
        if may_forward(target.backend):
            return forward_count(target.backend, call.for_model(target.model), context)
        if not isinstance(target.backend, SupportsChat):
            raise missing_capability(target.model, "chat", capabilities_of(target.backend))
        request = translate_request(call.payload)
        record_adaptations(request.adaptations, context.reply_headers)
        count = count_prompt(request.chat, target.model, self._chats.tokens)
        return CompleteAnswer(200, {}, b'{"input_tokens":%d}' % count)
