"""`POST /v1/embeddings`: what a request may look like (source: OpenAI's API reference, "Create embeddings")."""

from __future__ import annotations

from .base import RequestSchema
from .fields import Integer, PromptInput, String

MAX_INPUTS = 2048


class EmbeddingsRequestSchema(RequestSchema):
    """The body of `POST /v1/embeddings`."""

    model = String(about="The model that answers; the server's default model where absent.", example="mock-gpt-model")
    input = PromptInput(
        required=True,
        most=MAX_INPUTS,
        allows_empty=False,
        about=f"A text, up to {MAX_INPUTS} texts, the token ids of one text, or those of several; none empty.",
        example=["The food was delicious", "and the waiter was kind."],
    )
    encoding_format = String(about="`float`, or `base64` (little-endian 32-bit floats).", example="float")
    dimensions = Integer(about="How long the vectors shall be.")
    user = String(about="Your own name for the end user.")


EMBEDDINGS_REQUEST = EmbeddingsRequestSchema()
