"""Embeddings in OpenAI's format, of unit length and the same for the same text, as floats or in base64."""

from __future__ import annotations

import base64
import hashlib
import math
import struct

from .completions import texts_of
from .errors import ApiError, Json
from .options import Options
from .replies import count_tokens

DIMENSIONS = 1536


def embedding_objects(payload: Json, model: str, _options: Options) -> tuple[tuple[Json, ...], Json]:
    """Return the object of the answer and the usage.

    Raises:
        ApiError: the request is invalid.
    """
    texts = texts_of(payload, "input")
    if "" in texts:
        raise ApiError(400, "'$.input' is invalid: an empty string.", param="input")
    dimensions = payload.get("dimensions") or DIMENSIONS
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise ApiError(400, "Invalid value for 'dimensions': from 1 to 4096.", param="dimensions")
    is_base64 = payload.get("encoding_format") == "base64"
    data = [_item(index, _vector_of(text, dimensions), is_base64) for index, text in enumerate(texts)]
    tokens = sum(map(count_tokens, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return ({"object": "list", "data": data, "model": model, "usage": usage},), usage


def _vector_of(text: str, dimensions: int) -> bytes:
    """Return the vector of `text` as little-endian float32."""
    noise = hashlib.shake_256(text.encode("utf-8", "replace")).digest(2 * dimensions)
    values = [value + 0.5 for value in struct.unpack(f"<{dimensions}h", noise)]
    length = math.hypot(*values)
    return struct.pack(f"<{dimensions}f", *(value / length for value in values))


def _item(index: int, vector: bytes, is_base64: bool) -> Json:
    """Return one embedding in the requested encoding."""
    embedding = base64.b64encode(vector).decode() if is_base64 else struct.unpack(f"<{len(vector) // 4}f", vector)
    return {"object": "embedding", "index": index, "embedding": embedding}
