"""Text completions: from a validated payload to a completion, or to the chunks of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..backends.base import COMPLETION_PROMISES, Backend, SupportsCompletions, capabilities_of, missing_capability
from ..domain import CallContext, CompletionRequest, TextDelta, TokenLogprob, Usage
from ..errors import PayloadError, UpstreamCutError
from ..streams import PrimedStream, Silence, close_stream
from ..tokens import TokenCounter
from .adapting import prepare_payload
from .hooked import HookedDeltas
from .identity import new_id, now
from .parameters import to_texts, without_nulls
from .promises import check_promises
from .usage import count_texts, to_usage_object

JSON = dict[str, Any]


class CompletionService:
    """Answers completion calls from any backend that continues text."""

    def __init__(self, tokens: TokenCounter) -> None:
        self._tokens = tokens

    def start(self, backend: Backend, model: str, payload: Mapping[str, Any], context: CallContext) -> CompletionAnswer:
        """The answer, begun; raises as `ChatService.start` does."""
        if not isinstance(backend, SupportsCompletions):
            raise missing_capability(model, "completions", capabilities_of(backend))
        payload = prepare_payload(backend, payload, model, context)
        parameters = without_nulls(payload, "model", "prompt", "stream", "stream_options")
        check_promises(parameters, COMPLETION_PROMISES, backend.completion_promises, model)
        is_streamed = payload.get("stream") is True
        if is_streamed and parameters.get("best_of", 1) > parameters.get("n", 1):
            raise PayloadError("'best_of' cannot be streamed: the best is known only at the end.", param="best_of")
        request = CompletionRequest(model, to_texts(payload["prompt"]), parameters, is_streamed)
        deltas: Iterator[TextDelta | Silence] = PrimedStream(backend.complete(request, context))
        if backend.hooks is None:
            return CompletionAnswer(request, deltas, self._tokens)
        if backend.hooks.on_delta is not None:
            deltas = HookedDeltas(deltas, backend.hooks.on_delta, model, context)
        finish = partial(backend.hooks.finish, model=model, context=context) if backend.hooks.after_reply else None
        return CompletionAnswer(request, deltas, self._tokens, finish)


class CompletionAnswer:
    """One answer under way; the counterpart of `ChatAnswer`."""

    def __init__(
        self,
        request: CompletionRequest,
        deltas: Iterator[TextDelta | Silence],
        tokens: TokenCounter,
        finish: Callable[[JSON], JSON] | None = None,
    ) -> None:
        self.id = new_id("cmpl-")
        self.created = now()
        self.usage: Usage | None = None
        self._request = request
        self._deltas = deltas
        self._tokens = tokens
        self._finish = finish
        self._texts: list[str] = []

    def close(self) -> None:
        close_stream(self._deltas)

    def _checked(self) -> Iterator[TextDelta | Silence]:
        open_choices = set(range(len(self._request.prompts) * self._request.parameters.get("n", 1)))
        shown: list[TextDelta] | None = [] if self._finish and self._request.is_streamed else None
        for delta in self._deltas:
            if isinstance(delta, TextDelta):
                self._note(delta)
                if shown is not None:
                    shown.append(delta)
                if delta.finish_reason is not None:
                    open_choices.discard(delta.index)
            yield delta
        if open_choices:
            raise UpstreamCutError("The model's answer ended before it was complete.")
        self._final_usage()
        if shown is not None and self._finish is not None:
            self._finish(self._to_object(shown))

    def _note(self, delta: TextDelta) -> None:
        """Keeps the text to be counted, until the backend says that it counts for itself."""
        if delta.usage is not None:
            self.usage = delta.usage
            self._texts.clear()
        elif self.usage is None:
            self._texts.append(delta.text)

    def _final_usage(self) -> Usage:
        """What the backend counted, or what is counted here where it did not."""
        if self.usage is None:
            self.usage = self._counted()
        return self.usage

    def _counted(self) -> Usage:
        model = self._request.model
        return Usage(
            count_texts(self._request.prompts, model, self._tokens), self._tokens.count("".join(self._texts), model)
        )

    def to_completion(self) -> JSON:
        """Reads the answer to its end: the object `text_completion`."""
        completion = self._to_object(self._checked())
        return self._finish(completion) if self._finish and not self._request.is_streamed else completion

    def _to_object(self, deltas: Iterable[TextDelta | Silence]) -> JSON:
        texts: dict[int, list[TextDelta]] = {}
        for delta in deltas:
            if isinstance(delta, TextDelta):
                texts.setdefault(delta.index, []).append(delta)
        choices = [_to_whole_choice(index, texts[index]) for index in sorted(texts)]
        return {**self._frame(), "choices": choices, "usage": to_usage_object(self._final_usage())}

    def chunks(self, *, includes_usage: bool) -> Iterator[JSON | Silence]:
        """The same object in pieces; last the usage, if asked for."""
        offsets: dict[int, int] = {}
        for delta in self._checked():
            if isinstance(delta, Silence):
                yield delta
            elif delta.text or delta.finish_reason is not None:
                offset = offsets.get(delta.index, 0)
                offsets[delta.index] = offset + len(delta.text)
                choice = _to_choice(delta.index, delta.text, delta.logprobs, delta.finish_reason, offset)
                yield {**self._frame(), "choices": [choice], **({"usage": None} if includes_usage else {})}
        if includes_usage:
            yield {**self._frame(), "choices": [], "usage": to_usage_object(self._final_usage())}

    def _frame(self) -> JSON:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self._request.model}


def _to_whole_choice(index: int, deltas: Sequence[TextDelta]) -> JSON:
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
    """Completions' own shape: parallel lists, with offsets in characters from the start of the text."""
    if not logprobs:
        return None
    offsets = []
    for item in logprobs:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in logprobs],
        "token_logprobs": [item.logprob for item in logprobs],
        "top_logprobs": [None if item.logprob is None else dict(item.top) for item in logprobs],
        "text_offset": offsets,
    }
