"""Stream of one call's deltas, made from the text chunks of its sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from queue import Empty
from typing import Generic, Protocol, TypeVar

from openai_compat.core.errors import CallCancelledError, InvalidAnswerError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, TextDelta, TokenLogprob, Usage

from .scheduler import Scheduler
from .sequence import GenerationRequest, TextChunk

Delta = TypeVar("Delta", ChatDelta, TextDelta)
BuiltDelta = TypeVar("BuiltDelta", ChatDelta, TextDelta, covariant=True)


class DeltaBuilder(Protocol[BuiltDelta]):
    """Translation of text chunks into deltas."""

    def build(self, chunk: TextChunk, *, is_last: bool) -> Iterable[BuiltDelta]:
        """Return the deltas of a chunk. What was held back comes with the last chunk of all sequences.

        Raises:
            InvalidAnswerError: the text is broken.
        """


class OutputStream(Generic[Delta]):
    """Iterator over the deltas of one call, the last of which has the usage.

    The request is aborted when the stream is closed, cancelled or fails.
    """

    def __init__(
        self,
        request: GenerationRequest,
        scheduler: Scheduler,
        builder: DeltaBuilder[Delta],
        usage: Callable[[int], Usage],
        context: CallContext,
    ) -> None:
        self._request = request
        self._scheduler = scheduler
        self._builder: DeltaBuilder[Delta] = builder
        self._usage = usage
        self._cancellation = context.cancellation
        self._heartbeat_interval = context.heartbeat_interval or None
        self._open_sequences = len(request.waiting)
        self._tokens = 0
        self._ready: deque[Delta] = deque()
        self._cancellation.on_cancel(self._abort)
        scheduler.submit(request)

    def __iter__(self) -> Iterator[Delta | Heartbeat]:
        return self

    def __next__(self) -> Delta | Heartbeat:
        while not self._ready:
            if self._cancellation.is_cancelled:
                self.close()
                raise CallCancelledError
            if not self._open_sequences:
                self._cancellation.remove_callback(self._abort)
                raise StopIteration
            try:
                chunk = self._request.chunks.get(timeout=self._heartbeat_interval)
            except Empty:
                return HEARTBEAT
            if chunk is not None:
                self._accept(chunk)
        return self._ready.popleft()

    def close(self) -> None:
        """Abort the request, which frees its slots before the next token."""
        self._cancellation.remove_callback(self._abort)
        if self._open_sequences:
            self._open_sequences = 0
            self._abort()
        self._ready.clear()

    def _abort(self) -> None:
        self._scheduler.abort(self._request)

    def _accept(self, chunk: TextChunk) -> None:
        if chunk.error is not None:
            self.close()
            raise chunk.error
        self._tokens += chunk.tokens
        self._open_sequences -= chunk.finish_reason is not None
        is_last = not self._open_sequences
        try:
            self._ready.extend(self._builder.build(chunk, is_last=is_last))
        except InvalidAnswerError:
            self.close()
            raise
        if is_last:
            self._ready[-1] = replace(self._ready[-1], usage=self._usage(self._tokens))


class CompletionDeltaBuilder:
    """Builder of a text completion's deltas, one for each chunk.

    `echoed` has the text that each sequence begins with.
    """

    def __init__(self, echoed: Sequence[str] = ()) -> None:
        self._echoed = dict(enumerate(echoed))

    def build(self, chunk: TextChunk, *, is_last: bool) -> Iterable[TextDelta]:
        text = self._echoed.pop(chunk.index, "") + chunk.text
        if text or chunk.finish_reason or chunk.logprobs:
            yield TextDelta(text, chunk.index, chunk.finish_reason, chunk.logprobs)


class BestOfDeltaBuilder:
    """Builder that returns the `n` best of `candidates` sequences for each prompt, by their mean log probability."""

    def __init__(self, builder: CompletionDeltaBuilder, candidates: int, n: int, *, shows_logprobs: bool) -> None:
        self._builder = builder
        self._candidates = candidates
        self._n = n
        self._shows_logprobs = shows_logprobs
        self._chunks: dict[int, list[TextChunk]] = {}

    def build(self, chunk: TextChunk, *, is_last: bool) -> Iterable[TextDelta]:
        self._chunks.setdefault(chunk.index, []).append(chunk)
        if not is_last:
            return
        for prompt in range(len(self._chunks) // self._candidates):
            first = prompt * self._candidates
            ranked = sorted(range(first, first + self._candidates), key=self._mean_logprob, reverse=True)
            for rank, sequence in enumerate(ranked[: self._n]):
                yield self._merge(sequence, prompt * self._n + rank)

    def _mean_logprob(self, sequence: int) -> float:
        """Return the mean over the generated tokens. The prompt's are the same for all candidates."""
        values = [logprob.logprob for chunk in self._chunks[sequence] for logprob in chunk.logprobs if chunk.tokens]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else 0.0

    def _merge(self, sequence: int, index: int) -> TextDelta:
        """Return a sequence's complete text as one delta of the choice `index`."""
        deltas = [delta for chunk in self._chunks[sequence] for delta in self._builder.build(chunk, is_last=False)]
        logprobs: list[TokenLogprob] = [logprob for delta in deltas for logprob in delta.logprobs]
        return TextDelta(
            "".join(delta.text for delta in deltas),
            index,
            deltas[-1].finish_reason,
            logprobs if self._shows_logprobs else (),
        )


def count_usage(prompt_tokens: int) -> Callable[[int], Usage]:
    """Return a function from a call's completion tokens to its usage."""

    def usage(completion_tokens: int) -> Usage:
        return Usage(prompt_tokens, completion_tokens)

    return usage
