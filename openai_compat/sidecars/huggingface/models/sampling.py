"""Choosing the next token of one choice from the model's scores."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from openai_compat.core.errors import InternalError

if TYPE_CHECKING:
    from .structured_output import Constraint

GREEDY_BELOW: Final = 1e-5
"""Temperatures below divide by next to nothing: the likeliest token, as for 0."""
HEAD: Final = 1024
"""How many of the likeliest tokens are looked at for `top_p` before the whole vocabulary is sorted."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """OpenAI's parameters of one call. `top_logprobs` is None where no log probabilities are asked for.

    The penalties count the tokens generated so far, and not the prompt's (source: OpenAI's guide, "Frequency and
    presence penalties"; vLLM reads it so, too).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    top_logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


class Chosen(NamedTuple):
    """A token, with its log probability and the likeliest alternatives where they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one choice; its chance depends on the seed and the choice's number alone."""

    def __init__(self, options: SamplingOptions, choice: int = 0, constraint: Constraint | None = None) -> None:
        self.options = options
        self.constraint = constraint
        self._counts: Counter[int] = Counter()
        self._bias = _to_tensors(options.logit_bias)
        # No secret depends on this chance, and it must come out the same for the same seed.
        self._chance = random.Random() if options.seed is None else random.Random(f"{options.seed}/{choice}")  # noqa: S311

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is the answer, so that a whole batch can be decided in one operation."""
        options = self.options
        return (
            options.is_greedy
            and options.top_logprobs is None
            and self.constraint is None
            and self._bias is None
            and not (options.presence_penalty or options.frequency_penalty)
        )

    def choose(self, logits: torch.Tensor) -> Chosen:
        """The next token, by the model's `logits` for one position, a vector over the vocabulary.

        Raises:
            InternalError: the model's scores are no numbers.
        """
        raw = logits.float()
        scores = self._adjusted(raw)
        token = int(scores.argmax()) if self.options.is_greedy else self._draw(scores)
        if not scores[token].isfinite():
            raise InternalError("The model computed scores that are no numbers.")
        self._note(token)
        if self.options.top_logprobs is None:
            return Chosen(token)
        return with_logprobs(raw, token, self.options.top_logprobs)

    def _adjusted(self, raw: torch.Tensor) -> torch.Tensor:
        options = self.options
        scores = raw.clone()
        if self._bias is not None:
            scores[self._bias[0]] += self._bias[1].to(scores.device)
        if self._counts and (options.presence_penalty or options.frequency_penalty):
            tokens, counts = _to_tensors(self._counts) or (None, None)
            if tokens is not None and counts is not None:
                penalties = options.presence_penalty + options.frequency_penalty * counts
                scores[tokens] -= penalties.to(scores.device)
        if self.constraint is not None:
            scores.masked_fill_(~self.constraint.allowed(len(scores)).to(scores.device), -torch.inf)
        return scores

    def _draw(self, scores: torch.Tensor) -> int:
        probabilities = torch.softmax(scores / self.options.temperature, 0)
        if self.options.top_p < 1:
            probabilities = _nucleus(probabilities, self.options.top_p)
        sums = probabilities.double().cumsum(0)
        place = torch.searchsorted(sums, self._chance.random() * sums[-1], right=True)
        return min(int(place), len(sums) - 1)

    def _note(self, token: int) -> None:
        if self.options.presence_penalty or self.options.frequency_penalty:
            self._counts[token] += 1
        if self.constraint is not None:
            self.constraint.accept(token)


def with_logprobs(logits: torch.Tensor, token: int, top: int) -> Chosen:
    """The token with its log probability, as the model sees it: before temperature, penalties and constraints."""
    logprobs = torch.log_softmax(logits.float(), 0)
    values, tokens = logprobs.topk(top)
    return Chosen(token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Only the likeliest tokens whose sum reaches `top_p`, at least one."""
    values, tokens = probabilities.topk(min(HEAD, len(probabilities)))
    if values.sum() < top_p:
        values, tokens = probabilities.sort(descending=True)
    is_kept = values.cumsum(0) - values < top_p
    is_kept[0] = True
    kept = torch.zeros_like(probabilities)
    kept[tokens[is_kept]] = values[is_kept]
    return kept


def _to_tensors(values: Mapping[int, float]) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not values:
        return None
    return torch.tensor(list(values)), torch.tensor(list(values.values()), dtype=torch.float32)
