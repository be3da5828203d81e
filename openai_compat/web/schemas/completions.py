"""`POST /v1/completions`: what a request may look like (source: OpenAI's API reference, "Create completion")."""

from __future__ import annotations

from .chat import SamplingSchema
from .fields import Boolean, Integer, PromptInput, String


class CompletionRequestSchema(SamplingSchema):
    """The body of `POST /v1/completions`."""

    prompt = PromptInput(
        required=True,
        about="What to continue: a text, a list of texts, token ids, or a list of those.",
        example="Once upon a time",
    )
    best_of = Integer(about="How many continuations to try for each that is returned; never with `stream`.")
    echo = Boolean(about="Whether to return the prompt before its continuation.")
    logprobs = Integer(about="0 to 5: how many alternatives to return at each place.")
    suffix = String(about="What comes after the text to be inserted.")


COMPLETION_REQUEST = CompletionRequestSchema()
