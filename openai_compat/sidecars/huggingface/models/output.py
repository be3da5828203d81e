"""From the pieces of a job to the deltas of an answer: an iterator that waits, counts, and can be closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from queue import Empty
from typing import Generic, Protocol, TypeVar

from openai_compat.core.errors import CallCancelledError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import CallContext, ChatDelta, TextDelta, TokenLogprob, Usage

from .scheduler import GenerationRequest, Scheduler
from .sequence import TextChunk

Delta = TypeVar("Delta", ChatDelta, TextDelta)
Read = TypeVar("Read", ChatDelta, TextDelta, covariant=True)


class DeltaBuilder(Protocol[Read]):
    """Turns pieces into deltas; one that keeps pieces back gives them out with the last piece of all."""

    def read(self, piece: TextChunk, *, is_last: bool) -> Iterable[Read]: ...


class OutputStream(Generic[Delta]):
    """One call's answer under way.

    The job is abandoned when the answer is closed, cancelled or failed; the last delta has the usage.
    """

    def __init__(
        self,
        job: GenerationRequest,
        scheduler: Scheduler,
        reader: DeltaBuilder[Delta],
        usage: Callable[[int], Usage],
        context: CallContext,
    ) -> None:
        self._job = job
        self._scheduler = scheduler
        self._reader: DeltaBuilder[Delta] = reader
        self._usage = usage
        self._cancellation = context.cancellation
        self._silence_seconds = context.heartbeat_interval or None
        self._open_choices = len(job.waiting)
        self._tokens = 0
        self._ready: deque[Delta] = deque()
        self._cancellation.on_cancel(self._abandon)
        scheduler.submit(job)

    def __iter__(self) -> Iterator[Delta | Heartbeat]:
        return self

    def __next__(self) -> Delta | Heartbeat:
        while not self._ready:
            if self._cancellation.is_cancelled:
                self.close()
                raise CallCancelledError
            if not self._open_choices:
                self._cancellation.remove_callback(self._abandon)
                raise StopIteration
            try:
                piece = self._job.pieces.get(timeout=self._silence_seconds)
            except Empty:
                return HEARTBEAT
            if piece is not None:
                self._take(piece)
        return self._ready.popleft()

    def close(self) -> None:
        """Frees the job's places before the next token."""
        self._cancellation.remove_callback(self._abandon)
        if self._open_choices:
            self._open_choices = 0
            self._abandon()
        self._ready.clear()

    def _abandon(self) -> None:
        self._scheduler.abandon(self._job)

    def _take(self, piece: TextChunk) -> None:
        if piece.error is not None:
            self.close()
            raise piece.error
        self._tokens += piece.tokens
        self._open_choices -= piece.finish_reason is not None
        is_last = not self._open_choices
        self._ready.extend(self._reader.read(piece, is_last=is_last))
        if is_last:
            self._ready[-1] = replace(self._ready[-1], usage=self._usage(self._tokens))


class CompletionDeltaBuilder:
    """Text completions: a piece is a delta. `echoed` has the text that each choice begins with."""

    def __init__(self, echoed: Sequence[str] = ()) -> None:
        self._echoed = dict(enumerate(echoed))

    def read(self, piece: TextChunk, *, is_last: bool) -> Iterable[TextDelta]:
        text = self._echoed.pop(piece.choice, "") + piece.text
        if text or piece.finish_reason or piece.logprobs:
            yield TextDelta(text, piece.choice, piece.finish_reason, piece.logprobs)


class BestOfDeltaBuilder:
    """The `n` likeliest of `candidates` for each prompt, by the mean log probability of their tokens."""

    def __init__(self, reader: CompletionDeltaBuilder, candidates: int, n: int, *, shows_logprobs: bool) -> None:
        self._reader = reader
        self._candidates = candidates
        self._n = n
        self._shows_logprobs = shows_logprobs
        self._pieces: dict[int, list[TextChunk]] = {}

    def read(self, piece: TextChunk, *, is_last: bool) -> Iterable[TextDelta]:
        self._pieces.setdefault(piece.choice, []).append(piece)
        if not is_last:
            return
        for prompt in range(len(self._pieces) // self._candidates):
            first = prompt * self._candidates
            ranked = sorted(range(first, first + self._candidates), key=self._likelihood, reverse=True)
            for place, choice in enumerate(ranked[: self._n]):
                yield self._whole(choice, prompt * self._n + place)

    def _likelihood(self, choice: int) -> float:
        """Of what was generated: the prompt's own is the same for all."""
        values = [logprob.logprob for piece in self._pieces[choice] for logprob in piece.logprobs if piece.tokens]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else 0.0

    def _whole(self, choice: int, index: int) -> TextDelta:
        deltas = [delta for piece in self._pieces[choice] for delta in self._reader.read(piece, is_last=False)]
        logprobs: list[TokenLogprob] = [logprob for delta in deltas for logprob in delta.logprobs]
        return TextDelta(
            "".join(delta.text for delta in deltas),
            index,
            deltas[-1].finish_reason,
            logprobs if self._shows_logprobs else (),
        )


def count_usage(prompt_tokens: int) -> Callable[[int], Usage]:
    """Usage of a call whose prompts have so many tokens."""

    def usage(completion_tokens: int) -> Usage:
        return Usage(prompt_tokens, completion_tokens)

    return usage
