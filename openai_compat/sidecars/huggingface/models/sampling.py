"""Sampling of a sequence's next token from the model's scores."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from openai_compat.core.errors import InternalError

if TYPE_CHECKING:
    from .tool_constraint import SequenceConstraint

GREEDY_BELOW: Final = 1e-5
"""Temperature below which the likeliest token is chosen, as for 0, because the scores are divided by it."""
TOP_P_CANDIDATES: Final = 1024
"""Number of likeliest tokens that `top_p` is applied to before the complete vocabulary is sorted."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """OpenAI's sampling parameters of one call. `top_logprobs` is None if no log probabilities are requested.

    The penalties count the generated tokens and not the prompt's (source: OpenAI's guide, "Frequency and presence
    penalties", and vLLM does the same).
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


class SampledToken(NamedTuple):
    """A token, with its log probability and the likeliest alternatives if they were requested."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Sampler of one sequence. Its random numbers depend only on the seed and the sequence's index."""

    def __init__(self, options: SamplingOptions, index: int = 0, constraint: SequenceConstraint | None = None) -> None:
        self.options = options
        self.constraint = constraint
        self._counts: Counter[int] = Counter()
        self._bias = _to_tensors(options.logit_bias)
        # Not for secrets, and it must give the same numbers for the same seed.
        self._random = random.Random() if options.seed is None else random.Random(f"{options.seed}/{index}")  # noqa: S311

    @property
    def is_plain_greedy(self) -> bool:
        """Return True if the token is always the likeliest, so that one operation chooses it for a complete batch."""
        options = self.options
        return (
            options.is_greedy
            and options.top_logprobs is None
            and self.constraint is None
            and self._bias is None
            and not (options.presence_penalty or options.frequency_penalty)
        )

    def choose(self, logits: torch.Tensor) -> SampledToken:
        """Choose the next token by the model's `logits` for one position, a vector over the vocabulary.

        Raises:
            InternalError: the model's scores are not finite.
        """
        raw = logits.float()
        scores = self._adjust(raw)
        token = int(scores.argmax()) if self.options.is_greedy else self._draw(scores)
        if not scores[token].isfinite():
            raise InternalError("The model computed scores that are not finite numbers.")
        self._record(token)
        if self.options.top_logprobs is None:
            return SampledToken(token)
        return with_logprobs(raw, token, self.options.top_logprobs)

    def _adjust(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the scores with bias, penalties and constraint applied."""
        options = self.options
        scores = raw.clone()
        if self._bias is not None:
            scores[self._bias[0]] += self._bias[1].to(scores.device)
        if self._counts and (options.presence_penalty or options.frequency_penalty):
            tokens, counts = _to_tensors(self._counts) or (None, None)
            if tokens is not None and counts is not None:
                penalties = options.presence_penalty + options.frequency_penalty * counts
                scores[tokens] -= penalties.to(scores.device)
        allowed = None if self.constraint is None else self.constraint.allowed(len(scores))
        if allowed is not None:
            scores.masked_fill_(~allowed.to(scores.device), -torch.inf)
        return scores

    def _draw(self, scores: torch.Tensor) -> int:
        """Draw a token at random by temperature and `top_p`."""
        probabilities = torch.softmax(scores / self.options.temperature, 0)
        if self.options.top_p < 1:
            probabilities = _nucleus(probabilities, self.options.top_p)
        sums = probabilities.double().cumsum(0)
        token = torch.searchsorted(sums, self._random.random() * sums[-1], right=True)
        return min(int(token), len(sums) - 1)

    def _record(self, token: int) -> None:
        if self.options.presence_penalty or self.options.frequency_penalty:
            self._counts[token] += 1
        if self.constraint is not None:
            self.constraint.accept(token)


def with_logprobs(logits: torch.Tensor, token: int, top: int) -> SampledToken:
    """Return the token with its log probability by the model, before temperature, penalties and constraints."""
    logprobs = torch.log_softmax(logits.float(), 0)
    values, tokens = logprobs.topk(top)
    return SampledToken(token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the probabilities of the likeliest tokens whose sum reaches `top_p`, at least one, and 0 elsewhere."""
    values, tokens = probabilities.topk(min(TOP_P_CANDIDATES, len(probabilities)))
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
