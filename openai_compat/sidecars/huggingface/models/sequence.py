"""One choice of an answer on its way: its tokens become text, its text ends where it must."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from openai_compat.core.types import TokenLogprob

from .detokenizer import Detokenizer, token_text
from .sampling import Chosen, Sampler
from .stop_strings import StopStrings

if TYPE_CHECKING:
    from .scheduler import GenerationRequest

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text that a choice has gained; the last piece of each choice carries its finish reason.

    `tokens` counts what was generated for it, the end-of-text token included; `scores` are the log probabilities of
    the tokens generated for it, where they were asked for.
    """

    choice: int
    text: str = ""
    finish_reason: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0
    error: Exception | None = None


class GeneratedSequence:
    """What is being generated for one choice: the scheduler feeds it tokens, and it tells `emit` the pieces.

    `limit` is the number of tokens it may gain. `scores_prompt` asks for the log probabilities of the prompt's tokens.
    """

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        limit: int,
        sampler: Sampler,
        detokenizer: Detokenizer,
        stops: StopStrings,
        end_tokens: frozenset[int],
        tokenizer: Any,
        *,
        scores_prompt: bool = False,
    ) -> None:
        self.number = number
        self.prompt = prompt
        self.limit = limit
        self.sampler = sampler
        self.scores_prompt = scores_prompt
        self.emit: Callable[[TextChunk], None] = lambda piece: None
        self.job: GenerationRequest | None = None
        self.token_count = 0
        self._detokenizer = detokenizer
        self._stops = stops
        self._end_tokens = end_tokens
        self._tokenizer = tokenizer
        self._untold_tokens = 0
        self._logprobs: deque[TokenLogprob] = deque()
        self._told_ahead = 0
        """Characters told that belong to the first of `_logprobs`, whose text has been told in part."""

    def accept(self, chosen: Chosen) -> bool:
        """Takes the next token; whether that was the last one."""
        self.token_count += 1
        self._untold_tokens += 1
        if chosen.token in self._end_tokens:
            return self._finish("stop")
        text = self._detokenizer.push(chosen.token)
        if chosen.logprob is not None:
            self._logprobs.append(to_logprob(self._tokenizer, text, chosen))
        told = self._stops.push(text)
        if self._stops.is_stopped:
            return self._end(told, "stop")
        constraint = self.sampler.constraint
        if constraint is not None and constraint.is_complete:
            return self._finish("stop", told)
        if self.token_count >= self.limit:
            return self._finish("length", told)
        if told:
            self._tell(told, None)
        return False

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody reads this choice any more."""
        return self.job is not None and self.job.is_abandoned

    def tell_prompt(self, scores: Sequence[Chosen]) -> None:
        """Tells the prompt as text of the answer, with what the model thought of each of its tokens but the first."""
        detokenizer = Detokenizer(self._tokenizer)
        scored = [Chosen(self.prompt[0]), *scores]
        logprobs = [to_logprob(self._tokenizer, detokenizer.push(chosen.token), chosen) for chosen in scored]
        rest = detokenizer.flush()
        logprobs[-1] = replace(logprobs[-1], token=logprobs[-1].token + rest)
        self.emit(TextChunk(self.number, "".join(logprob.token for logprob in logprobs), None, tuple(logprobs)))

    def end_without_tokens(self) -> None:
        """None were asked for."""
        self._tell("", "length")

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self.emit(TextChunk(self.number, error=error))

    def _finish(self, reason: Finish, told: str = "") -> bool:
        """Ends with what had been held back: no stop string came of it."""
        rest = self._detokenizer.flush()
        if rest and self._logprobs:
            last = self._logprobs.pop()
            self._logprobs.append(replace(last, token=last.token + rest))
        told += self._stops.push(rest)
        if self._stops.is_stopped:
            return self._end(told, "stop")
        return self._end(told + self._stops.flush(), reason)

    def _end(self, told: str, reason: Finish) -> bool:
        self._tell(told, reason)
        return True

    def _tell(self, text: str, reason: Finish | None) -> None:
        tokens, self._untold_tokens = self._untold_tokens, 0
        logprobs = self._logprobs_of(text, is_last=reason is not None)
        self.emit(TextChunk(self.number, text, reason, logprobs, tokens))

    def _logprobs_of(self, text: str, *, is_last: bool) -> tuple[TokenLogprob, ...]:
        """Those of the tokens that make up `text`; a token that a stop string cut goes with what is left of it."""
        if not self._logprobs:
            return ()
        room = self._told_ahead + len(text)
        told = []
        while self._logprobs and len(self._logprobs[0].token) <= room:
            told.append(self._logprobs.popleft())
            room -= len(told[-1].token)
        if is_last and room and self._logprobs:
            first = self._logprobs[0]
            told.append(replace(first, token=first.token[:room]))
        self._told_ahead = room
        return tuple(told)


def to_logprob(tokenizer: Any, text: str, chosen: Chosen) -> TokenLogprob:
    """`text` is what the token added: empty in the midst of a character."""
    top = tuple((token_text(tokenizer, token), logprob) for token, logprob in chosen.top)
    return TokenLogprob(text, chosen.logprob, top)
