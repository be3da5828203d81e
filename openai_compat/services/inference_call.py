"""A validated inference call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

CHAT_PATH: Final = "chat/completions"
COMPLETIONS_PATH: Final = "completions"
EMBEDDINGS_PATH: Final = "embeddings"
RESPONSES_PATH: Final = "responses"
MESSAGES_PATH: Final = "messages"


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """A validated request. `path` is relative to an API's root, `body` holds the client's bytes, `payload` their JSON.

    `model` is the name that the client asked for.
    """

    path: str
    body: bytes
    payload: Mapping[str, Any]
    model: str

    def for_model(self, model: str) -> InferenceCall:
        """Return the same call for the model that is to answer it."""
        return self if model == self.model else replace(self, model=model)

    @property
    def is_streamed(self) -> bool:
        """Embeddings are never streamed."""
        return self.payload.get("stream") is True and self.path != EMBEDDINGS_PATH

    @property
    def may_repeat(self) -> bool:
        """False if a stored completion would be there twice. Stored responses are not listed, so theirs may be."""
        return self.path == RESPONSES_PATH or not self.payload.get("store")

    @property
    def choices(self) -> int:
        """The number of answers, `n` for each prompt."""
        return self.prompts * (self.payload.get("n") or 1)

    @property
    def prompts(self) -> int:
        """The number of prompts of a text completion, 1 for any other call."""
        prompt = self.payload.get("prompt")
        return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1

    @property
    def wants_usage(self) -> bool:
        """True if the client asked for the usage at the end of a stream."""
        return bool((self.payload.get("stream_options") or {}).get("include_usage"))
