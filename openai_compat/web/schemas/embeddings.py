"""Schema of the requests to `POST /v1/embeddings` (see OpenAI's API reference, "Create embeddings")."""

from __future__ import annotations

from .base import RequestSchema
from .fields import Integer, PromptInput, String


class EmbeddingsRequestSchema(RequestSchema):
    """Body of `POST /v1/embeddings`."""

    model = String(description="The model. If absent, the server's default model.", example="mock-gpt-model")
    input = PromptInput(
        required=True,
        allows_empty=False,
        description="A text, several texts, token ids of one text or of several. None may be empty. OpenAI, the echo "
        "model and local models take up to 2048.",
        example=["The food was delicious", "and the waiter was kind."],
    )
    encoding_format = String(description="`float`, or `base64` (little-endian 32-bit floats).", example="float")
    dimensions = Integer(description="The length of the vectors.")
    user = String(description="Your identifier of the end user.")


EMBEDDINGS_REQUEST = EmbeddingsRequestSchema()
