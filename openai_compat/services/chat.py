"""Chat completions, complete or as chunks, made of a backend's deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from openai_compat.backends.base import CHAT_PARAMETERS, Backend, SupportsChat, capabilities_of, missing_capability
from openai_compat.backends.parsing.openai_chat import read_completion
from openai_compat.core.streams import HEARTBEAT, Heartbeat, PrimedStream
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import JSON, CallContext, ChatDelta, ChatRequest, TokenLogprob, ToolCallDelta, Usage

from .answer import Finish, StreamingAnswer
from .emulation.plan import emulate
from .legacy_functions import to_legacy_chunk, to_legacy_message, to_tools
from .openai_objects import join_audio, new_id, to_finite, to_tool_texts, to_usage_object
from .parameters import check_stream_options, check_supported, drop_empty_tools, drop_nulls
from .preparation import prepare_payload
from .response_hooks import apply_hooks

_INPUT_KEYS: Final = {"function": "arguments", "custom": "input"}
"""Types of tool calls, which are also the keys of their objects, and the key of each one's input."""


class ChatService:
    """The chat endpoint for backends that can chat. Ids, times, usage and shapes are made here."""

    def __init__(self, tokens: TokenCounter) -> None:
        self.tokens = tokens

    def start(self, backend: Backend, model: str, payload: Mapping[str, Any], context: CallContext) -> ChatAnswer:
        """Start an answer and wait for its first delta.

        Raises:
            CapabilityError, UnsupportedParameterError, InvalidRequestError
            BackendError, CallCancelledError: raised by the backend before its first delta.
        """
        if not isinstance(backend, SupportsChat):
            raise missing_capability(model, "chat", capabilities_of(backend))
        payload = prepare_payload(backend, payload, model, context)
        check_stream_options(backend, payload)
        parameters = drop_empty_tools(drop_nulls(payload, "model", "messages", "stream", "stream_options"))
        is_legacy = "functions" in parameters
        if is_legacy:
            parameters = to_tools(parameters)
        request = ChatRequest(model, payload["messages"], parameters, payload.get("stream") is True)
        supported = backend.supported_chat_parameters
        chat = emulate(backend, request, supported, context, is_legacy=is_legacy)
        request = chat.request
        check_supported(request.parameters, CHAT_PARAMETERS, supported, model)
        deltas: Iterator[ChatDelta | Heartbeat] = PrimedStream(chat.read(backend.chat(request, context), context))
        deltas, finish = apply_hooks(backend.hooks, deltas, model, context)
        return ChatAnswer(request, deltas, self.tokens, is_legacy=is_legacy, finish=finish)


class ChatAnswer(StreamingAnswer[ChatDelta]):
    """A chat answer in progress."""

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
        self._messages = request.messages
        self._tools = request.parameters.get("tools") or ()
        self._tokens = tokens
        self._is_legacy = is_legacy

    def _texts_of(self, delta: ChatDelta) -> Iterable[str]:
        texts: tuple[str | None, ...] = (delta.content, delta.reasoning, delta.refusal)
        if delta.tool_calls:
            texts += tuple(call.arguments for call in delta.tool_calls)
        return filter(None, texts)

    def _count(self, text: str) -> Usage:
        prompt = self._tokens.count_messages(self._messages, self.model)
        tools = self._tokens.count_all(to_tool_texts(self._tools), self.model)
        return Usage(prompt + tools, self._tokens.count(text, self.model))

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
        """Yield chunks with each choice's role, deltas and finish reason, and last the usage on request."""
        introduced: set[int] = set()
        for delta in self.deltas():
            if delta is HEARTBEAT:
                yield delta
                continue
            if delta.index not in introduced:
                introduced.add(delta.index)
                content = None if delta.tool_calls else ""
                yield self._chunk(
                    delta.index, {"role": "assistant", "content": content, "refusal": None}, includes_usage
                )
            yield from self._delta_chunks(delta, includes_usage)
        if includes_usage:
            yield {**self._frame(), "choices": [], "usage": to_usage_object(self.final_usage())}

    def _delta_chunks(self, delta: ChatDelta, includes_usage: bool) -> Iterator[JSON]:
        for part in _to_chunk_deltas(delta):
            shown = to_legacy_chunk(part) if self._is_legacy else part
            if shown is None:
                continue
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


def complete_deltas(answer: ChatAnswer) -> Iterator[ChatDelta]:
    """Yield the deltas of a complete answer, as the model's `after_reply` hook leaves it."""
    if not answer.has_finish_hook:
        yield from (delta for delta in answer.deltas() if isinstance(delta, ChatDelta))
        return
    yield from read_completion(answer.to_completion())


class _Choice:
    """One choice, collected from its deltas."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.annotations: list[Mapping[str, Any]] = []
        self.audio: list[Mapping[str, Any]] = []
        self.reasoning_details: list[Mapping[str, Any]] = []
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
        self.reasoning_details.extend(delta.reasoning_details)
        if delta.audio is not None:
            self.audio.append(delta.audio)
        self.finish_reason = delta.finish_reason or self.finish_reason
        for call in delta.tool_calls:
            self.calls.setdefault(call.index, _Call()).add(call)

    def to_choice(self, index: int, *, is_legacy: bool) -> JSON:
        text = "".join(self.content)
        has_other = bool(self.calls or self.refusal or self.audio)
        message: JSON = {"role": "assistant", "content": text or (None if has_other else ""), "refusal": None}
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.reasoning_details:
            message["reasoning_details"] = self.reasoning_details
        if self.calls:
            message["tool_calls"] = [self.calls[number].to_object() for number in sorted(self.calls)]
        if self.annotations:
            message["annotations"] = self.annotations
        if self.audio:
            message["audio"] = join_audio(self.audio)
        finish = self.finish_reason
        if is_legacy:
            message, finish = to_legacy_message(message), _legacy_finish(finish)
        return {"index": index, "message": message, "logprobs": to_logprobs(self.logprobs), "finish_reason": finish}


class _Call:
    """One tool call, collected from its deltas. It gets an id if the backend gives none."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.type = "function"
        self.arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.name or self.name
        self.type = delta.type
        self.arguments.append(delta.arguments)

    def to_object(self) -> JSON:
        body = {"name": self.name or "", _INPUT_KEYS[self.type]: "".join(self.arguments)}
        return {"id": self.id or new_id("call_"), "type": self.type, self.type: body}


def _to_chunk_deltas(delta: ChatDelta) -> list[JSON]:
    """Return the chunk deltas of one backend delta, text first, then the start and the arguments of each tool call."""
    text: JSON = {}
    if delta.content:
        text["content"] = delta.content
    if delta.refusal:
        text["refusal"] = delta.refusal
    if delta.reasoning:
        text["reasoning_content"] = delta.reasoning
    if delta.reasoning_details:
        text["reasoning_details"] = list(delta.reasoning_details)
    if delta.annotations:
        text["annotations"] = list(delta.annotations)
    if delta.audio is not None:
        text["audio"] = delta.audio
    parts = [text] if text else []
    for call in delta.tool_calls:
        input_key = _INPUT_KEYS[call.type]
        if call.name is not None or call.id is not None:
            start = {"index": call.index, "id": call.id or new_id("call_"), "type": call.type}
            parts.append({"tool_calls": [{**start, call.type: {"name": call.name or "", input_key: ""}}]})
        if call.arguments:
            parts.append({"tool_calls": [{"index": call.index, call.type: {input_key: call.arguments}}]})
    return parts


def _legacy_finish(reason: str | None) -> str | None:
    return "function_call" if reason == "tool_calls" else reason


def to_logprobs(logprobs: Any) -> JSON | None:
    """Return chat's `logprobs` object, or None if there are none."""
    if not logprobs:
        return None
    to_item = TimeSlices().checked(_to_logprob_with_others)
    return {"content": [to_item(item) for item in logprobs], "refusal": None}


def _to_logprob_with_others(item: TokenLogprob) -> JSON:
    return {**_to_logprob(item.token, item.logprob), "top_logprobs": [_to_logprob(*pair) for pair in item.top]}


def _to_logprob(token: str, logprob: float | None) -> JSON:
    return {"token": token, "logprob": to_finite(logprob), "bytes": list(token.encode("utf-8", "replace"))}
