"""Text completions, complete or as chunks, made of a backend's deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from openai_compat.backends.base import (
    COMPLETION_PARAMETERS,
    Backend,
    SupportsCompletions,
    capabilities_of,
    missing_capability,
)
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.streams import HEARTBEAT, Heartbeat, PrimedStream
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import JSON, CallContext, CompletionRequest, TextDelta, TokenLogprob, Usage

from .answer import Finish, StreamingAnswer
from .openai_objects import count_texts, to_finite, to_usage_object
from .parameters import check_stream_options, check_supported, drop_nulls, to_texts
from .preparation import prepare_payload
from .response_hooks import apply_hooks


class CompletionService:
    """The completions endpoint for backends that continue text."""

    def __init__(self, tokens: TokenCounter) -> None:
        self.tokens = tokens

    def start(self, backend: Backend, model: str, payload: Mapping[str, Any], context: CallContext) -> CompletionAnswer:
        """Start an answer. Raise as `ChatService.start` does."""
        if not isinstance(backend, SupportsCompletions):
            raise missing_capability(model, "completions", capabilities_of(backend))
        payload = prepare_payload(backend, payload, model, context)
        check_stream_options(backend, payload)
        parameters = drop_nulls(payload, "model", "prompt", "stream", "stream_options")
        check_supported(parameters, COMPLETION_PARAMETERS, backend.supported_completion_parameters, model)
        is_streamed = payload.get("stream") is True
        if is_streamed and parameters.get("best_of", 1) > parameters.get("n", 1):
            raise InvalidRequestError(
                "'best_of' cannot be streamed, because the best answer is known only at the end.", param="best_of"
            )
        request = CompletionRequest(model, to_texts(payload["prompt"]), parameters, is_streamed)
        deltas: Iterator[TextDelta | Heartbeat] = PrimedStream(backend.complete(request, context))
        deltas, finish = apply_hooks(backend.hooks, deltas, model, context)
        return CompletionAnswer(request, deltas, self.tokens, finish)


class CompletionAnswer(StreamingAnswer[TextDelta]):
    """A text completion in progress."""

    id_prefix = "cmpl-"

    def __init__(
        self,
        request: CompletionRequest,
        deltas: Iterator[TextDelta | Heartbeat],
        tokens: TokenCounter,
        finish: Finish | None = None,
    ) -> None:
        choices = len(request.prompts) * request.parameters.get("n", 1)
        super().__init__(deltas, choices=choices, is_streamed=request.is_streamed, finish=finish)
        self._request = request
        self._tokens = tokens

    def _texts_of(self, delta: TextDelta) -> Iterable[str]:
        return (delta.text,)

    def _count(self, text: str) -> Usage:
        model = self._request.model
        return Usage(count_texts(self._request.prompts, model, self._tokens), self._tokens.count(text, model))

    def _to_object(self, deltas: Iterable[TextDelta | Heartbeat]) -> JSON:
        texts: dict[int, list[TextDelta]] = {}
        for delta in deltas:
            if isinstance(delta, TextDelta):
                texts.setdefault(delta.index, []).append(delta)
        choices = [_to_complete_choice(index, texts[index]) for index in sorted(texts)]
        return {**self._frame(), "choices": choices, "usage": to_usage_object(self.final_usage())}

    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Heartbeat]:
        """Yield `text_completion` objects with one delta each, and last the usage on request."""
        offsets: dict[int, int] = {}
        for delta in self.deltas():
            if delta is HEARTBEAT:
                yield delta
            elif delta.text or delta.finish_reason is not None:
                offset = offsets.get(delta.index, 0)
                offsets[delta.index] = offset + len(delta.text)
                choice = _to_choice(delta.index, delta.text, delta.logprobs, delta.finish_reason, offset)
                yield {**self._frame(), "choices": [choice], **({"usage": None} if includes_usage else {})}
        if includes_usage:
            yield {**self._frame(), "choices": [], "usage": to_usage_object(self.final_usage())}

    def _frame(self) -> JSON:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self._request.model}


def _to_complete_choice(index: int, deltas: Sequence[TextDelta]) -> JSON:
    finish_reason = next(delta.finish_reason for delta in reversed(deltas) if delta.finish_reason is not None)
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    return _to_choice(index, "".join(delta.text for delta in deltas), logprobs, finish_reason, 0)


def _to_choice(index: int, text: str, logprobs: Sequence[TokenLogprob], finish_reason: str | None, offset: int) -> JSON:
    return {
        "text": text,
        "index": index,
        "logprobs": _to_legacy_logprobs(logprobs, offset),
        "finish_reason": finish_reason,
    }


def _to_legacy_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> JSON | None:
    """Return the legacy shape, parallel lists with offsets in characters from the start of the text."""
    if not logprobs:
        return None
    offsets = []
    for item in logprobs:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in logprobs],
        "token_logprobs": [to_finite(item.logprob) for item in logprobs],
        "top_logprobs": [
            None if item.logprob is None else {token: to_finite(logprob) for token, logprob in item.top}
            for item in logprobs
        ],
        "text_offset": offsets,
    }
