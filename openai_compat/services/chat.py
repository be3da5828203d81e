"""Chat: from a validated payload to a completion, or to the chunks of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from openai_compat.backends.base import CHAT_PARAMETERS, Backend, SupportsChat, capabilities_of, missing_capability
from openai_compat.core.streams import Heartbeat, PrimedStream
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest, TokenLogprob, ToolCallDelta, Usage

from .answer import JSON, Finish, StreamingAnswer
from .legacy_functions import to_legacy_chunk, to_legacy_message, to_tools
from .openai_objects import new_id, to_usage_object
from .parameters import check_supported, drop_nulls
from .preparation import prepare_payload
from .response_hooks import apply_hooks


class ChatService:
    """Answers chat calls from any backend that can chat; ids, times, usage and the shape are made here."""

    def __init__(self, tokens: TokenCounter) -> None:
        self._tokens = tokens

    def start(self, backend: Backend, model: str, payload: Mapping[str, Any], context: CallContext) -> ChatAnswer:
        """The answer, begun: the backend has refused what it refuses and has given its first piece.

        Raises:
            CapabilityError, UnsupportedParameterError, PayloadError
            BackendError, CallCancelledError: the backend's, before its first piece.
        """
        if not isinstance(backend, SupportsChat):
            raise missing_capability(model, "chat", capabilities_of(backend))
        payload = prepare_payload(backend, payload, model, context)
        parameters = drop_nulls(payload, "model", "messages", "stream", "stream_options")
        check_supported(parameters, CHAT_PARAMETERS, _promises_of(backend), model)
        is_legacy = "functions" in parameters
        if is_legacy:
            parameters = to_tools(parameters)
        request = ChatRequest(model, payload["messages"], parameters, payload.get("stream") is True)
        deltas: Iterator[ChatDelta | Heartbeat] = PrimedStream(backend.chat(request, context))
        deltas, finish = apply_hooks(backend.hooks, deltas, model, context)
        return ChatAnswer(request, deltas, self._tokens, is_legacy=is_legacy, finish=finish)


def _promises_of(backend: SupportsChat) -> frozenset[str]:
    """Backends see tools alone: one that keeps those keeps `functions`, and one that does not keeps neither."""
    promises = backend.supported_chat_parameters - {"functions"}
    return promises | {"functions"} if "tools" in promises else promises


class ChatAnswer(StreamingAnswer[ChatDelta]):
    """A chat's answer under way. It may also be read as the chunks of a stream."""

    id_prefix = "chatcmpl-"

    def __init__(
        self,
        request: ChatRequest,
        deltas: Iterator[ChatDelta | Heartbeat],
        tokens: TokenCounter,
        *,
        is_legacy: bool,
        finish: Finish | None = None,
    ) -> None:
        choices = request.parameters.get("n", 1)
        super().__init__(deltas, choices=choices, is_streamed=request.is_streamed, finish=finish)
        self.model = request.model
        self._request = request
        self._tokens = tokens
        self._is_legacy = is_legacy

    def _texts_of(self, delta: ChatDelta) -> Iterable[str]:
        return (delta.content or "", *(call.arguments for call in delta.tool_calls))

    def _count(self, text: str) -> Usage:
        prompt = self._tokens.count_messages(self._request.messages, self.model)
        return Usage(prompt, self._tokens.count(text, self.model))

    def _to_object(self, deltas: Iterable[ChatDelta | Heartbeat]) -> JSON:
        choices: dict[int, _Choice] = {}
        for delta in deltas:
            if isinstance(delta, ChatDelta):
                choices.setdefault(delta.index, _Choice()).add(delta)
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choices[index].to_choice(index, is_legacy=self._is_legacy) for index in sorted(choices)],
            "usage": to_usage_object(self.final_usage()),
        }

    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Heartbeat]:
        """The objects `chat.completion.chunk`: each choice's role, pieces and finish; last the usage, if asked for."""
        introduced: set[int] = set()
        for delta in self.deltas():
            if isinstance(delta, Heartbeat):
                yield delta
                continue
            if delta.index not in introduced:
                introduced.add(delta.index)
                content = None if delta.tool_calls else ""
                yield self._chunk(
                    delta.index, {"role": "assistant", "content": content, "refusal": None}, includes_usage
                )
            yield from self._pieces(delta, includes_usage)
        if includes_usage:
            yield {**self._frame(), "choices": [], "usage": to_usage_object(self.final_usage())}

    def _pieces(self, delta: ChatDelta, includes_usage: bool) -> Iterator[JSON]:
        pieces = _to_pieces(delta)
        for piece in pieces:
            shown = to_legacy_chunk(piece) if self._is_legacy else piece
            yield self._chunk(delta.index, shown, includes_usage, logprobs=to_logprobs(delta.logprobs))
        if delta.finish_reason is not None:
            finish = _legacy_finish(delta.finish_reason) if self._is_legacy else delta.finish_reason
            yield self._chunk(delta.index, {}, includes_usage, finish_reason=finish)

    def _chunk(
        self,
        index: int,
        delta: JSON,
        includes_usage: bool,
        *,
        finish_reason: str | None = None,
        logprobs: JSON | None = None,
    ) -> JSON:
        chunk = self._frame()
        chunk["choices"] = [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}]
        if includes_usage:
            chunk["usage"] = None
        return chunk

    def _frame(self) -> JSON:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}


class _Choice:
    """Puts the pieces of one choice together."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.annotations: list[Mapping[str, Any]] = []
        self.calls: dict[int, _Call] = {}
        self.finish_reason: str | None = None

    def add(self, delta: ChatDelta) -> None:
        if delta.content:
            self.content.append(delta.content)
        if delta.refusal:
            self.refusal.append(delta.refusal)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        self.logprobs.extend(delta.logprobs)
        self.annotations.extend(delta.annotations)
        self.finish_reason = delta.finish_reason or self.finish_reason
        for call in delta.tool_calls:
            self.calls.setdefault(call.index, _Call()).add(call)

    def to_choice(self, index: int, *, is_legacy: bool) -> JSON:
        text = "".join(self.content)
        has_other = bool(self.calls or self.refusal)
        message: JSON = {"role": "assistant", "content": text or (None if has_other else ""), "refusal": None}
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = [self.calls[number].to_object() for number in sorted(self.calls)]
        if self.annotations:
            message["annotations"] = self.annotations
        finish = self.finish_reason
        if is_legacy:
            message, finish = to_legacy_message(message), _legacy_finish(finish)
        return {"index": index, "message": message, "logprobs": to_logprobs(self.logprobs), "finish_reason": finish}


class _Call:
    """Puts the pieces of one tool call together; makes an id where the backend gives none."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.name or self.name
        self.arguments.append(delta.arguments)

    def to_object(self) -> JSON:
        function = {"name": self.name or "", "arguments": "".join(self.arguments)}
        return {"id": self.id or new_id("call_"), "type": "function", "function": function}


def _to_pieces(delta: ChatDelta) -> list[JSON]:
    """The chunk deltas that one domain delta makes: text first, then each tool call's head and its arguments."""
    piece: JSON = {}
    if delta.content:
        piece["content"] = delta.content
    if delta.refusal:
        piece["refusal"] = delta.refusal
    if delta.reasoning:
        piece["reasoning_content"] = delta.reasoning
    if delta.annotations:
        piece["annotations"] = list(delta.annotations)
    pieces = [piece] if piece else []
    for call in delta.tool_calls:
        if call.name is not None or call.id is not None:
            head = {"index": call.index, "id": call.id or new_id("call_"), "type": "function"}
            pieces.append({"tool_calls": [{**head, "function": {"name": call.name or "", "arguments": ""}}]})
        if call.arguments:
            pieces.append({"tool_calls": [{"index": call.index, "function": {"arguments": call.arguments}}]})
    return pieces


def _legacy_finish(reason: str | None) -> str | None:
    return "function_call" if reason == "tool_calls" else reason


def to_logprobs(logprobs: Any) -> JSON | None:
    """Chat's `logprobs` object; None where there are none."""
    if not logprobs:
        return None
    return {
        "content": [
            {**_to_logprob(item.token, item.logprob), "top_logprobs": [_to_logprob(*pair) for pair in item.top]}
            for item in logprobs
        ],
        "refusal": None,
    }


def _to_logprob(token: str, logprob: float) -> JSON:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}
