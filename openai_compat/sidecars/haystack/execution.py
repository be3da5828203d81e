"""One call: the conversation into the pipeline, its pieces and its end out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from haystack.dataclasses import ChatMessage, ExtractedAnswer, GeneratedAnswer, StreamingChunk

from openai_compat.backends.base import CHAT_PARAMETERS
from openai_compat.backends.parsing.openai_chat import ChatParser, normalise_finish_reason, read_usage
from openai_compat.core.errors import InvalidRequestError, UpstreamInvalidResponseError
from openai_compat.core.types import ChatDelta, FinishReason, JSONObject, Usage
from openai_compat.services.parameters import check_supported

from .citations import cited_sources, render_citations
from .conversations import Conversations, extend
from .haystack_compat import run_pipeline
from .loading import LoadedPipeline
from .messages import query_of, to_chat_message, to_openai_chunk, to_openai_message

USAGE_ASKED_FOR: Final = {"stream_options": {"include_usage": True}}
Results = Mapping[str, Mapping[str, Any]]
Emit = Callable[[ChatDelta], None]


class PipelineRun:
    """A call under way. `emit` takes each piece to the client, and raises when that has left."""

    def __init__(self, loaded: LoadedPipeline, request: Mapping[str, Any], emit: Emit, kept: Conversations) -> None:
        self._loaded = loaded
        self._mapped = loaded.mapped
        self._sent: Sequence[JSONObject] = request["messages"]
        self._parameters: dict[str, Any] = request["parameters"]
        self._key: str | None = request["conversation"]
        self._emit = emit
        self._kept = kept
        self._reader = ChatParser()
        self._texts: dict[int, list[str]] = {}
        self._streamed_usage: Usage | None = None
        self._streamed_finish: str | None = None

    def answer(self) -> None:
        """
        Raises:
            PayloadError, UnsupportedParameterError: before the pipeline runs.
            whatever the pipeline's components raise.
        """
        self._refuse_what_cannot_be_kept()
        messages, replaces = extend(self._kept.load(self._key), self._sent) if self._key else (self._sent, True)
        results = run_pipeline(self._loaded.pipeline, self._to_inputs(messages), self._mapped.outputs_from)
        answers = self._answers_in(results)
        self._finish(answers, results)
        if self._key:
            self._kept.append(self._key, [*self._sent, self._to_message(answers[0])], replaces=replaces)

    def _refuse_what_cannot_be_kept(self) -> None:
        """A pipeline without an input for parameters keeps no promise."""
        if not self._mapped.inputs["parameters"]:
            check_supported(self._parameters, CHAT_PARAMETERS, frozenset(), self._loaded.entry.name)

    def _to_inputs(self, messages: Sequence[JSONObject]) -> dict[str, dict[str, Any]]:
        query = query_of(messages)
        if query is None and self._mapped.inputs["query"]:
            raise InvalidRequestError("The messages must have one with the role 'user'.", param="messages")
        speaker = self._mapped.stream_from if self._parameters.get("n", 1) == 1 else None
        asks_usage = speaker is not None and self._loaded.tells_usage
        conversation = [to_chat_message(message) for message in messages]
        last = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
        said = {
            "messages": conversation,
            "history": conversation[:last],
            "query": query,
            "parameters": {**self._parameters, **(USAGE_ASKED_FOR if asks_usage else {})},
        }
        inputs = self._mapped.to_inputs(said)
        if speaker is not None:
            # A function of its own: Haystack copies inputs, and would copy a bound method's object with it.
            inputs.setdefault(speaker, {})["streaming_callback"] = lambda chunk: self._take(chunk)
        return inputs

    def _take(self, chunk: StreamingChunk) -> None:
        self._streamed_usage = read_usage(chunk.meta.get("usage")) or self._streamed_usage
        self._streamed_finish = chunk.meta.get("finish_reason") or chunk.finish_reason or self._streamed_finish
        for delta in self._reader.read(to_openai_chunk(chunk, with_tools="tools" in self._parameters)):
            self._say(delta)

    def _say(self, delta: ChatDelta) -> None:
        if delta.content:
            self._texts.setdefault(delta.index, []).append(delta.content)
        self._emit(delta)

    def _answers_in(self, results: Results) -> Sequence[Any]:
        """One for each choice, None where the pipeline has given none. Of ranked answers and documents, the first."""
        answer = results.get(self._mapped.answer.component, {}).get(self._mapped.answer.socket)
        answers = (answer if isinstance(answer, list) else [answer]) or [None]
        return answers if self._mapped.answer.socket == "replies" else answers[:1]

    def _to_message(self, answer: Any) -> JSONObject:
        """The answer as it is remembered: without its sources, which are for the reader."""
        calls = to_openai_message(answer).get("tool_calls") if has_calls(answer) else None
        message = {"role": "assistant", "content": "".join(self._texts.get(0, []))}
        return {**message, "tool_calls": calls} if calls else message

    def _finish(self, answers: Sequence[Any], results: Results) -> None:
        """What was not streamed, the sources, and the end of each choice."""
        is_streamed = bool(self._texts) or self._streamed_finish is not None
        usage = self._streamed_usage
        for index, whole in enumerate(answers):
            if not is_streamed:
                for delta in self._reader.read({"choices": [{"index": index, **_to_choice(whole)}]}):
                    self._say(delta)
            if not self._texts and not has_calls(whole) and not self._finish_word(whole):
                raise UpstreamInvalidResponseError("The pipeline ended without an answer.")
            usage = usage or read_usage(_meta_of(whole).get("usage"))
            self._name_sources(index, results)
            is_last = index == len(answers) - 1
            self._emit(ChatDelta(None, index, self._finish_reason(whole), usage=usage if is_last else None))

    def _finish_reason(self, answer: Any) -> FinishReason:
        """A tool call ends the answer only where the client has tools: a pipeline calls its own by itself."""
        reason = normalise_finish_reason(self._finish_word(answer))
        if "tools" not in self._parameters:
            return "stop" if reason == "tool_calls" else reason
        return "tool_calls" if has_calls(answer) and reason == "stop" else reason

    def _finish_word(self, answer: Any) -> str | None:
        """In the words of whoever answered; None where nobody said why it ended."""
        return self._streamed_finish or _meta_of(answer).get("finish_reason")

    def _name_sources(self, index: int, results: Results) -> None:
        """In the text, where it is a text for people, and as annotations."""
        place = self._mapped.documents
        documents = results.get(place.component, {}).get(place.socket) if place else None
        pieces = self._texts.get(index)
        if not documents or not pieces:
            return
        text = "".join(pieces)
        listing, annotations = render_citations(text, cited_sources(text, documents), self._loaded.options.document_url)
        is_for_people = self._parameters.get("response_format", {}).get("type", "text") == "text"
        if is_for_people:
            self._emit(ChatDelta(listing, index, annotations=annotations))
        else:
            whole = {"start_index": 0, "end_index": len(text)}
            pointed = [{**note, "url_citation": {**note["url_citation"], **whole}} for note in annotations]
            self._emit(ChatDelta(index=index, annotations=pointed))


def has_calls(answer: Any) -> bool:
    return isinstance(answer, ChatMessage) and bool(answer.tool_calls)


def _meta_of(answer: Any) -> Mapping[str, Any]:
    meta = getattr(answer, "meta", None)
    return meta if isinstance(meta, Mapping) else {}


def _to_choice(answer: Any) -> dict[str, Any]:
    """A choice of a chat completion, from whatever a pipeline answers with."""
    if isinstance(answer, ChatMessage):
        return {"message": to_openai_message(answer), "logprobs": _meta_of(answer).get("logprobs")}
    if isinstance(answer, GeneratedAnswer | ExtractedAnswer):
        return {"message": {"content": answer.data or ""}}
    content = getattr(answer, "content", answer)  # a Document, or a text
    return {"message": {"content": "" if content is None else str(content)}}
