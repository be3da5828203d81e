"""Execution of a pipeline for one call, from the conversation to the deltas of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from haystack.dataclasses import ChatMessage, ExtractedAnswer, GeneratedAnswer, StreamingChunk

from openai_compat.backends.base import CHAT_PARAMETERS
from openai_compat.backends.parsing.openai_chat import ChatParser, normalise_finish_reason, read_usage
from openai_compat.core.errors import InvalidRequestError, UpstreamInvalidResponseError
from openai_compat.core.types import ChatDelta, ChatRequest, FinishReason, JSONObject, Usage
from openai_compat.services.parameters import check_supported

from .citations import cited_sources, render_citations
from .conversations import Conversations, extend
from .generation_kwargs import check_parameters, to_generation_kwargs
from .haystack_compat import run_pipeline
from .loading import LoadedPipeline
from .messages import last_user_text, to_chat_message, to_openai_chunk, to_openai_message

INCLUDE_USAGE: Final = {"stream_options": {"include_usage": True}}
Results = Mapping[str, Mapping[str, Any]]
Emit = Callable[[ChatDelta], None]


class PipelineRun:
    """A call in progress. `emit` sends each delta to the client and raises `ClientDisconnected`."""

    def __init__(
        self,
        loaded: LoadedPipeline,
        request: ChatRequest,
        emit: Emit,
        conversations: Conversations,
        conversation_key: str | None,
    ) -> None:
        self._loaded = loaded
        self._mapping = loaded.mapping
        self._messages = request.messages
        self._parameters = request.parameters
        self._conversation_key = conversation_key
        self._emit = emit
        self._conversations = conversations
        self._parser = ChatParser()
        self._texts: dict[int, list[str]] = {}
        self._streamed_usage: Usage | None = None
        self._streamed_finish: str | None = None

    def answer(self) -> None:
        """Run the pipeline, emit its answer and store the conversation.

        Raises:
            InvalidRequestError: raised before the pipeline runs.
            UnsupportedParameterError: raised before the pipeline runs.
            UpstreamInvalidResponseError: the pipeline ended without an answer.
            Exception: anything that the pipeline's components raise.
        """
        self._check_parameters()
        messages, replaces = self._messages, True
        if self._conversation_key:
            messages, replaces = extend(self._conversations.load(self._conversation_key), self._messages)
        results = run_pipeline(self._loaded.pipeline, self._to_inputs(messages), self._mapping.outputs_from)
        answers = self._answers_in(results)
        if self._conversation_key:  # before the end of the answer, so that what the caller got is never lost
            exchange = [*self._messages, self._to_message(answers[0])]
            self._conversations.append(self._conversation_key, exchange, replaces=replaces)
        self._finish(answers, results)

    def _check_parameters(self) -> None:
        """Raise UnsupportedParameterError for a parameter that the pipeline cannot take or must not get."""
        if self._mapping.inputs["parameters"]:
            check_parameters(self._parameters, self._loaded.entry.name)
        else:
            check_supported(self._parameters, CHAT_PARAMETERS, frozenset(), self._loaded.entry.name)

    def _to_inputs(self, messages: Sequence[JSONObject]) -> dict[str, dict[str, Any]]:
        query = last_user_text(messages)
        if query is None and self._mapping.inputs["query"]:
            raise InvalidRequestError("The messages must have one with the role 'user'.", param="messages")
        streaming = self._mapping.stream_from if self._parameters.get("n", 1) == 1 else None
        includes_usage = streaming is not None and self._loaded.supports_usage
        conversation = [to_chat_message(message) for message in messages]
        last_user = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
        values = {"messages": conversation, "history": conversation[:last_user], "query": query}
        inputs = self._mapping.to_inputs(values)
        parameters = {**self._parameters, **(INCLUDE_USAGE if includes_usage else {})}
        for name, socket in self._mapping.inputs["parameters"]:
            component = self._loaded.pipeline.get_component(name)
            inputs.setdefault(name, {})[socket] = to_generation_kwargs(parameters, component)
        if streaming is not None:
            # A plain function, because Haystack copies inputs and would copy a bound method's object with it.
            inputs.setdefault(streaming, {})["streaming_callback"] = lambda chunk: self._on_chunk(chunk)
        return inputs

    def _on_chunk(self, chunk: StreamingChunk) -> None:
        self._streamed_usage = read_usage(chunk.meta.get("usage")) or self._streamed_usage
        self._streamed_finish = chunk.meta.get("finish_reason") or chunk.finish_reason or self._streamed_finish
        for delta in self._parser.read(to_openai_chunk(chunk, with_tools="tools" in self._parameters)):
            self._emit_content(delta)

    def _emit_content(self, delta: ChatDelta) -> None:
        if delta.content:
            self._texts.setdefault(delta.index, []).append(delta.content)
        self._emit(delta)

    def _answers_in(self, results: Results) -> Sequence[Any]:
        """Return one answer for each choice, None if the pipeline has none.

        Only an output named `replies` has several choices. Of ranked answers and documents, the first is the answer.
        """
        answer = results.get(self._mapping.answer.component, {}).get(self._mapping.answer.socket)
        answers = (answer if isinstance(answer, list) else [answer]) or [None]
        return answers if self._mapping.answer.socket == "replies" else answers[:1]

    def _to_message(self, answer: Any) -> JSONObject:
        """Return the message to store, without the list of sources."""
        calls = to_openai_message(answer).get("tool_calls") if has_calls(answer) else None
        message = {"role": "assistant", "content": "".join(self._texts.get(0, []))}
        return {**message, "tool_calls": calls} if calls else message

    def _finish(self, answers: Sequence[Any], results: Results) -> None:
        """Emit the content that was not streamed, the sources, and the finish reason of each choice."""
        is_streamed = bool(self._texts) or self._streamed_finish is not None
        usage = self._streamed_usage
        for index, answer in enumerate(answers):
            if not is_streamed:
                for delta in self._parser.read({"choices": [{"index": index, **_to_choice(answer)}]}):
                    self._emit_content(delta)
            if not self._texts and not has_calls(answer) and not self._reported_finish(answer):
                raise UpstreamInvalidResponseError("The pipeline ended without an answer.")
            usage = usage or read_usage(_meta_of(answer).get("usage"))
            self._emit_sources(index, results)
            is_last = index == len(answers) - 1
            self._emit(ChatDelta(None, index, self._finish_reason(answer), usage=usage if is_last else None))

    def _finish_reason(self, answer: Any) -> FinishReason:
        """Return the finish reason. It is `tool_calls` only if the client sent tools, not for an agent's own tools."""
        reason = normalise_finish_reason(self._reported_finish(answer))
        if "tools" not in self._parameters:
            return "stop" if reason == "tool_calls" else reason
        return "tool_calls" if has_calls(answer) and reason == "stop" else reason

    def _reported_finish(self, answer: Any) -> str | None:
        """Return the finish reason as the model reported it, or None."""
        return self._streamed_finish or _meta_of(answer).get("finish_reason")

    def _emit_sources(self, index: int, results: Results) -> None:
        """Emit the sources of a choice as annotations and, unless the answer is structured, as text."""
        output = self._mapping.documents
        documents = results.get(output.component, {}).get(output.socket) if output else None
        texts = self._texts.get(index)
        if not documents or not texts:
            return
        text = "".join(texts)
        listing, annotations = render_citations(text, cited_sources(text, documents), self._loaded.options.document_url)
        is_plain_text = self._parameters.get("response_format", {}).get("type", "text") == "text"
        if is_plain_text:
            self._emit(ChatDelta(listing, index, annotations=annotations))
        else:
            span = {"start_index": 0, "end_index": len(text)}
            spanning = [{**note, "url_citation": {**note["url_citation"], **span}} for note in annotations]
            self._emit(ChatDelta(index=index, annotations=spanning))


def has_calls(answer: Any) -> bool:
    """Return True if the answer is a message with tool calls."""
    return isinstance(answer, ChatMessage) and bool(answer.tool_calls)


def _meta_of(answer: Any) -> Mapping[str, Any]:
    meta = getattr(answer, "meta", None)
    return meta if isinstance(meta, Mapping) else {}


def _to_choice(answer: Any) -> dict[str, Any]:
    """Return a choice of a chat completion for any type of answer that a pipeline may have."""
    if isinstance(answer, ChatMessage):
        return {"message": to_openai_message(answer), "logprobs": _meta_of(answer).get("logprobs")}
    if isinstance(answer, GeneratedAnswer | ExtractedAnswer):
        return {"message": {"content": answer.data or ""}}
    content = getattr(answer, "content", answer)  # a Document or a string
    return {"message": {"content": "" if content is None else str(content)}}
