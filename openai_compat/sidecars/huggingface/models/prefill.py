"""Reading prompts: short ones together, long ones piece by piece, so that nobody who is being answered waits long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from .forward import ForwardPass
from .sampling import Chosen
from .sequence import GeneratedSequence

TOKENS_AT_ONCE: Final = 256
"""Tokens of prompts between two tokens of the running batch: half a second for a small model on two cores."""


class Prefill:
    """Prompts on their way into a cache of their own. Each group of choices continues one prompt, one row."""

    def __init__(self, forward: ForwardPass, groups: list[list[GeneratedSequence]]) -> None:
        self.groups = groups
        self.cache = forward.new_cache()
        self.cache.begin(len(groups))
        self.begun: list[GeneratedSequence] | None = None
        """The choices that have their first token, where they could not join the batch."""
        self._forward = forward
        self._prompts = [group[0].prompt for group in groups]
        self._read = 0
        self._scores_prompt = groups[0][0].scores_prompt
        self._prompt_scores: list[Chosen] = []

    @property
    def choices(self) -> list[GeneratedSequence]:
        return [choice for group in self.groups for choice in group]

    def step(self) -> torch.Tensor | None:
        """Reads on; at the end the scores after each prompt, [rows, 1 or more, vocabulary], before that None."""
        begin, self._read = self._read, self._read + TOKENS_AT_ONCE
        if len(self._prompts) > 1:
            return self._forward.extend(self.cache, self._prompts)
        (prompt,) = self._prompts
        tokens = prompt[begin : self._read]
        scores = self._forward.extend(self.cache, [tokens], all_scores=self._scores_prompt)
        if self._scores_prompt:
            self._note_scores(scores[0], prompt[begin + 1 : self._read + 1])
        if self._read < len(prompt):
            return None
        if self._scores_prompt:
            for choice in self.choices:
                choice.tell_prompt(self._prompt_scores)
        return scores

    def _note_scores(self, scores: torch.Tensor, following: Sequence[int]) -> None:
        """What the model thought of each token that follows."""
        logprobs = torch.log_softmax(scores[: len(following)].float(), -1)
        top = self.groups[0][0].sampler.options.top_logprobs or 0
        values, tokens = (tensor.tolist() for tensor in logprobs.topk(top))
        for place, token in enumerate(following):
            alternatives = tuple(zip(tokens[place], values[place], strict=True))
            self._prompt_scores.append(Chosen(token, float(logprobs[place, token]), alternatives))


def fits_in(groups: Sequence[Sequence[GeneratedSequence]], choice: GeneratedSequence) -> bool:
    """Whether the choice's prompt can be read together with those: padding must not cost more than it saves."""
    if not groups:
        return True
    lengths = [len(group[0].prompt) for group in groups] + [len(choice.prompt)]
    if choice.scores_prompt or groups[0][0].scores_prompt:
        return False
    return max(lengths) * len(lengths) <= TOKENS_AT_ONCE and max(lengths) <= 2 * min(lengths) + 16
