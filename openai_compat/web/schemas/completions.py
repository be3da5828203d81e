"""Schema of the requests to `POST /v1/completions` (see OpenAI's API reference, "Create completion")."""

from __future__ import annotations

from .chat import SamplingSchema
from .fields import Boolean, Integer, PromptInput, String


class CompletionRequestSchema(SamplingSchema):
    """Body of `POST /v1/completions`."""

    prompt = PromptInput(
        required=True,
        description="The text to continue: a text, a list of texts, token ids, or a list of those.",
        example="Once upon a time",
    )
    best_of = Integer(
        description="How many continuations to generate for each one that is returned. Not with `stream`."
    )
    echo = Boolean(description="Return the prompt before its continuation.")
    logprobs = Integer(description="0 to 5: how many alternatives to return at each position.")
    suffix = String(description="The text after the inserted completion.")


COMPLETION_REQUEST = CompletionRequestSchema()
