"""Generation of one sequence, which turns its tokens into text, log probabilities and a finish reason."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Literal

from openai_compat.core.types import TokenLogprob

from .detokenizer import Detokenizer, token_text
from .sampling import SampledToken, Sampler
from .stop_strings import StopStrings

SequenceFinish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text that a sequence has gained. The last chunk of each sequence has its finish reason.

    `tokens` counts the generated tokens, including the end-of-text token. `logprobs` has the log probabilities of the
    tokens that make up the text, if they were requested.
    """

    index: int
    text: str = ""
    finish_reason: SequenceFinish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0
    error: Exception | None = None


class GeneratedSequence:
    """One sequence under generation. The scheduler adds tokens to it, and it passes text chunks to `emit`.

    `index` is its number in the request, `max_tokens` the limit on its generated tokens. `scores_prompt` requests the
    log probabilities of the prompt's tokens.
    """

    def __init__(
        self,
        index: int,
        prompt: Sequence[int],
        max_tokens: int,
        sampler: Sampler,
        detokenizer: Detokenizer,
        stops: StopStrings,
        end_tokens: frozenset[int],
        tokenizer: Any,
        *,
        scores_prompt: bool = False,
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.sampler = sampler
        self.scores_prompt = scores_prompt
        self.emit: Callable[[TextChunk], None] = lambda chunk: None
        self.request: GenerationRequest | None = None
        self.token_count = 0
        self._detokenizer = detokenizer
        self._stops = stops
        self._end_tokens = end_tokens
        self._tokenizer = tokenizer
        self._uncounted_tokens = 0
        self._logprobs: deque[TokenLogprob] = deque()
        self._emitted_ahead = 0
        """Emitted characters of the first token in `_logprobs`, whose text has been emitted in part."""

    def accept(self, sampled: SampledToken) -> bool:
        """Add the next token. Return True if it was the last one."""
        self.token_count += 1
        self._uncounted_tokens += 1
        if sampled.token in self._end_tokens:
            return self._finish("stop")
        added = self._detokenizer.push(sampled.token)
        if sampled.logprob is not None:
            self._logprobs.append(to_logprob(self._tokenizer, added, sampled))
        text = self._stops.push(added)
        if self._stops.is_stopped:
            return self._emit_last(text, "stop")
        constraint = self.sampler.constraint
        if constraint is not None and constraint.is_complete:
            return self._finish("stop", text)
        if self.token_count >= self.max_tokens:
            return self._finish("length", text)
        if text:
            self._emit_text(text, None)
        return False

    @property
    def is_aborted(self) -> bool:
        """Return True if the caller has aborted the request."""
        return self.request is not None and self.request.is_aborted

    def emit_prompt(self, scores: Sequence[SampledToken]) -> None:
        """Emit the prompt as text of the answer, with the log probabilities of all its tokens but the first."""
        detokenizer = Detokenizer(self._tokenizer)
        scored = [SampledToken(self.prompt[0]), *scores]
        logprobs = [to_logprob(self._tokenizer, detokenizer.push(sampled.token), sampled) for sampled in scored]
        rest = detokenizer.flush()
        logprobs[-1] = replace(logprobs[-1], token=logprobs[-1].token + rest)
        self.emit(TextChunk(self.index, "".join(logprob.token for logprob in logprobs), None, tuple(logprobs)))

    def finish_without_tokens(self) -> None:
        """Finish a sequence that may not have any generated tokens (`max_tokens` 0)."""
        self._emit_text("", "length")

    def fail(self, error: Exception) -> None:
        """Emit the error as the last chunk."""
        self.emit(TextChunk(self.index, error=error))

    def _finish(self, reason: SequenceFinish, text: str = "") -> bool:
        """Emit `text` and what was held back, which may still contain a stop string."""
        rest = self._detokenizer.flush()
        if rest and self._logprobs:
            last = self._logprobs.pop()
            self._logprobs.append(replace(last, token=last.token + rest))
        text += self._stops.push(rest)
        if self._stops.is_stopped:
            return self._emit_last(text, "stop")
        return self._emit_last(text + self._stops.flush(), reason)

    def _emit_last(self, text: str, reason: SequenceFinish) -> bool:
        self._emit_text(text, reason)
        return True

    def _emit_text(self, text: str, reason: SequenceFinish | None) -> None:
        tokens, self._uncounted_tokens = self._uncounted_tokens, 0
        logprobs = self._take_logprobs(text, is_last=reason is not None)
        self.emit(TextChunk(self.index, text, reason, logprobs, tokens))

    def _take_logprobs(self, text: str, *, is_last: bool) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities of the tokens in `text`. The last one may be a token cut by a stop string."""
        if not self._logprobs:
            return ()
        length = self._emitted_ahead + len(text)
        taken = []
        while self._logprobs and len(self._logprobs[0].token) <= length:
            taken.append(self._logprobs.popleft())
            length -= len(taken[-1].token)
        if is_last and length and self._logprobs:
            first = self._logprobs[0]
            taken.append(replace(first, token=first.token[:length]))
        self._emitted_ahead = length
        return tuple(taken)


class GenerationRequest:
    """The sequences of one call. The queue `chunks` has their text chunks, or None once the request was aborted."""

    def __init__(self, sequences: Iterable[GeneratedSequence]) -> None:
        self.chunks: SimpleQueue[TextChunk | None] = SimpleQueue()
        self.waiting = deque(sequences)
        self.is_aborted = False
        for sequence in self.waiting:
            sequence.emit = self.chunks.put
            sequence.request = self

    def next_group(self, limit: int) -> list[GeneratedSequence]:
        """Return up to `limit` waiting sequences with the same prompt, which is then read only once."""
        group = [self.waiting.popleft()]
        while self.waiting and len(group) < limit and self.waiting[0].prompt is group[0].prompt:
            group.append(self.waiting.popleft())
        return group


def to_logprob(tokenizer: Any, text: str, sampled: SampledToken) -> TokenLogprob:
    """Return a token's log probability. `text` is what the token added, empty in the middle of a character."""
    top = tuple((token_text(tokenizer, token), logprob) for token, logprob in sampled.top)
    return TokenLogprob(text, sampled.logprob, top)
