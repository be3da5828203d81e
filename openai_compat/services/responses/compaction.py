"""Token counts and compaction of the input of a response."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.profiles import record_adaptations
from openai_compat.core.types import JSON, CallContext
from openai_compat.routing.route import Target
from openai_compat.routing.router import Route
from openai_compat.services.continuation import Continuation
from openai_compat.services.event_stream import CompleteAnswer
from openai_compat.services.inference import Endpoint
from openai_compat.services.inference_call import InferenceCall
from openai_compat.services.openai_objects import new_id, now, to_json, to_tool_texts
from openai_compat.services.owner import owner_of
from openai_compat.services.stored_items import to_item

from .endpoint import ResponsesService, may_forward, may_forward_any
from .items import type_of
from .native import forward_complete
from .objects import to_usage
from .request import TranslatedRequest, translate_request
from .sealing import COMPACTION
from .state import CallState

TOKENS_PATH: Final = "responses/input_tokens"
COMPACT_PATH: Final = "responses/compact"
PROMPT: Final = (
    "Summarize this conversation for an assistant that continues it without having seen it. Keep the goals, decisions, "
    "facts, names, numbers, results of tools and open tasks. Answer with the summary only."
)


class InputEndpoint(Endpoint):
    """An endpoint that takes the input of a response, and is answered by one object."""

    is_forwarded = False

    def __init__(self, service: ResponsesService, route: Route, call: InferenceCall, caller: str | None) -> None:
        """Use objects of `caller`, which is a credential."""
        self._service = service
        self._route = route
        self._call = call
        self._state = CallState(service.store, call.payload, owner_of(caller), only_reads=True)

    def translate(
        self, call: InferenceCall, target: Target | Route, context: CallContext, continuation: Continuation | None
    ) -> CompleteAnswer:
        if may_forward(target.backend) and not self._state.uses_own_objects():
            forwarded = forward_complete(target.backend, call.for_model(target.model), context)
            if forwarded is not None:
                return forwarded
        return self._answer(target, self._translated(context), context)

    def _translated(self, context: CallContext) -> TranslatedRequest:
        open_reasoning = partial(self._service.sealer.read, model=self._call.model)
        request = translate_request(self._call.payload, self._state.stored, self._state.input, open_reasoning)
        record_adaptations(request.adaptations, context.reply_headers)
        return request

    @abstractmethod
    def _answer(self, target: Target | Route, request: TranslatedRequest, context: CallContext) -> CompleteAnswer:
        """Return the answer to a call that is not passed through."""


class TokensEndpoint(InputEndpoint):
    """`POST /responses/input_tokens`."""

    path = TOKENS_PATH

    def _answer(self, target: Target | Route, request: TranslatedRequest, context: CallContext) -> CompleteAnswer:
        tokens = self._service.chats.tokens
        count = tokens.count_messages(request.chat["messages"], self._call.model)
        count += tokens.count_all(to_tool_texts(request.chat.get("tools") or ()), self._call.model)
        return CompleteAnswer(200, {}, to_json({"object": "response.input_tokens", "input_tokens": count}))


class CompactionEndpoint(InputEndpoint):
    """`POST /responses/compact`, which lets the model summarize the input."""

    path = COMPACT_PATH

    def stored_tokens(self) -> int:
        return self._state.stored_tokens(may_forward=may_forward_any(self._route))

    def _answer(self, target: Target | Route, request: TranslatedRequest, context: CallContext) -> CompleteAnswer:
        messages = [*request.chat["messages"], {"role": "user", "content": PROMPT}]
        answer = self._service.chats.start(target.backend, target.model, _without_tools(request, messages), context)
        try:
            summary = answer.to_completion()["choices"][0]["message"]["content"]
        finally:
            answer.close()
        if not summary:
            raise UpstreamInvalidResponseError("The model wrote no summary.")
        usage = answer.final_usage()
        compaction: JSON = {
            "id": new_id("resp_"),
            "object": "response.compaction",
            "created_at": now(),
            "output": [*_users_messages([*self._state.stored, *self._state.input]), self._to_item(summary)],
            "usage": to_usage(usage),
        }
        return CompleteAnswer(200, {}, to_json(compaction), usage)

    def _to_item(self, summary: str) -> JSON:
        sealed = self._service.sealer.seal(summary, model=COMPACTION)
        return {"id": new_id("cmp_"), "type": COMPACTION, "encrypted_content": sealed}


def _without_tools(request: TranslatedRequest, messages: Sequence[Any]) -> JSON:
    left_out = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
    chat = {name: value for name, value in request.chat.items() if name not in left_out}
    return {**chat, "messages": messages, "stream": False}


def _users_messages(items: Sequence[Mapping[str, Any]]) -> list[JSON]:
    """Return the messages of the user, which stay as they are."""
    return [to_item(item) for item in items if type_of(item) == "message" and item["role"] == "user"]
