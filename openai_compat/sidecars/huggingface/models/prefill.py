"""Prefill of prompts, short ones together and long ones in parts, so that running sequences wait only briefly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from .forward import ForwardPass
from .sampling import SampledToken
from .sequence import GeneratedSequence

MAX_PREFILL_TOKENS: Final = 256
"""Prompt tokens between two tokens of the running batch. A small model reads them in half a second on two cores."""


class Prefill:
    """Prompts that are being read into a cache of their own.

    Each group has the sequences that continue one prompt, which takes one row of the cache.
    """

    def __init__(self, forward: ForwardPass, groups: list[list[GeneratedSequence]]) -> None:
        self.groups = groups
        self.cache = forward.new_cache()
        self.cache.start(len(groups))
        self.started: list[GeneratedSequence] | None = None
        """The sequences that have their first token, if they could not join the batch."""
        self._forward = forward
        self._prompts = [group[0].prompt for group in groups]
        self._position = 0
        self._scores_prompt = groups[0][0].scores_prompt
        self._prompt_scores: list[SampledToken] = []

    @property
    def sequences(self) -> list[GeneratedSequence]:
        return [sequence for group in self.groups for sequence in group]

    def step(self) -> torch.Tensor | None:
        """Read the next part of the prompts. Return None until they are read to the end.

        Then return the scores after each prompt, [rows, 1 or more, vocabulary].
        """
        begin, self._position = self._position, self._position + MAX_PREFILL_TOKENS
        if len(self._prompts) > 1:
            return self._forward.extend(self.cache, self._prompts)
        (prompt,) = self._prompts
        tokens = prompt[begin : self._position]
        scores = self._forward.extend(self.cache, [tokens], all_scores=self._scores_prompt)
        if self._scores_prompt:
            self._record_scores(scores[0], prompt[begin + 1 : self._position + 1])
        if self._position < len(prompt):
            return None
        if self._scores_prompt:
            for sequence in self.sequences:
                sequence.emit_prompt(self._prompt_scores)
        return scores

    def _record_scores(self, scores: torch.Tensor, next_tokens: Sequence[int]) -> None:
        """Record the log probability of each prompt token, from the scores after the token before it."""
        logprobs = torch.log_softmax(scores[: len(next_tokens)].float(), -1)
        top = self.groups[0][0].sampler.options.top_logprobs or 0
        values, tokens = (tensor.tolist() for tensor in logprobs.topk(top))
        for position, token in enumerate(next_tokens):
            alternatives = tuple(zip(tokens[position], values[position], strict=True))
            self._prompt_scores.append(SampledToken(token, float(logprobs[position, token]), alternatives))


def can_share_prefill(groups: Sequence[Sequence[GeneratedSequence]], sequence: GeneratedSequence) -> bool:
    """Return True if the sequence's prompt can be read together with those of `groups`.

    Padding must not cost more than the shared forward pass saves.
    """
    if not groups:
        return True
    lengths = [len(group[0].prompt) for group in groups] + [len(sequence.prompt)]
    if sequence.scores_prompt or groups[0][0].scores_prompt:
        return False
    return max(lengths) * len(lengths) <= MAX_PREFILL_TOKENS and max(lengths) <= 2 * min(lengths) + 16
