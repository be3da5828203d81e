"""A validated inference call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """A validated call: `body` are the client's bytes, `payload` what they say, `model` the name that was asked for."""

    path: str
    body: bytes
    payload: Mapping[str, Any]
    model: str

    def for_model(self, model: str) -> InferenceCall:
        """The same call, for the model that is to answer it."""
        return self if model == self.model else replace(self, model=model)

    @property
    def is_streamed(self) -> bool:
        return self.payload.get("stream") is True

    @property
    def choices(self) -> int:
        """How many answers the client gets: `n` for each prompt."""
        prompt = self.payload.get("prompt")
        prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
        return prompts * (self.payload.get("n") or 1)

    @property
    def wants_usage(self) -> bool:
        return bool((self.payload.get("stream_options") or {}).get("include_usage"))
