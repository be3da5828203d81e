"""Embeddings as lists of numbers or as base64, in the order of the inputs."""

from __future__ import annotations

import base64
import re
import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsEmbeddings, capabilities_of, missing_capability
from openai_compat.core.errors import InvalidRequestError, UpstreamInvalidResponseError
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import CallContext, EmbeddingsRequest, Usage

from .openai_objects import count_texts
from .parameters import drop_nulls, to_texts
from .preparation import prepare_payload
from .token_decoder import TokenDecoder

_VECTOR: Final = re.compile(rb'("embedding"\s*:\s*)\[([^\[\]]*)\]')


class EmbeddingService:
    """The embeddings endpoint for backends that have them."""

    def __init__(self, tokens: TokenCounter, decoder: TokenDecoder) -> None:
        self._tokens = tokens
        self._decoder = decoder

    def create(
        self, backend: Backend, model: str, payload: Mapping[str, Any], context: CallContext
    ) -> tuple[dict[str, Any], Usage, Sequence[int]]:
        """Return the `list` object, its usage, and the indexes of inputs that were cut to the model's context window.

        Raises:
            CapabilityError, UnsupportedParameterError, InvalidRequestError, BackendError, CallCancelledError
        """
        if not isinstance(backend, SupportsEmbeddings):
            raise missing_capability(model, "embeddings", capabilities_of(backend))
        payload = prepare_payload(backend, payload, model, context)
        encode = _encoder(payload.get("encoding_format"))
        parameters = drop_nulls(payload, "model", "input", "dimensions", "encoding_format")
        inputs = self._decoder.decode_all(to_texts(payload["input"]))
        request = EmbeddingsRequest(model, inputs, payload.get("dimensions"), parameters)
        result = backend.embed(request, context)
        usage = result.usage or Usage(count_texts(request.inputs, model, self._tokens))
        to_object = TimeSlices().checked(_to_object)
        data = [to_object(index, vector, encode) for index, vector in enumerate(result.vectors)]
        counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
        answer: dict[str, Any] = {"object": "list", "data": data, "model": model, "usage": counts}
        finished = backend.hooks.run_after_reply(answer, model, context) if backend.hooks else answer
        return finished, usage, result.truncated


def _to_object(index: int, vector: Sequence[float], encode: Callable[[Sequence[float]], Any]) -> dict[str, Any]:
    """Return one embedding.

    Raises:
        UpstreamInvalidResponseError: a number is not finite, so that it cannot be written as JSON.
    """
    if not isfinite(sum(vector)) and not all(map(isfinite, vector)):
        raise UpstreamInvalidResponseError("The model's embeddings contain NaN or Infinity.")
    return {"object": "embedding", "index": index, "embedding": encode(vector)}


def _encoder(encoding_format: str | None) -> Any:
    if encoding_format in {None, "float"}:
        return _to_list
    if encoding_format == "base64":
        return to_base64
    raise InvalidRequestError(
        f"Invalid value: '{encoding_format}'. Supported values are: 'float' and 'base64'.",
        param="encoding_format",
        code="invalid_value",
    )


def _to_list(vector: Sequence[float]) -> list[float]:
    """Return a list, which is the vector itself if it is one, as all vectors of a call may have millions of numbers."""
    return vector if isinstance(vector, list) else list(vector)


def to_base64(vector: Sequence[float]) -> str:
    """Return little-endian 32-bit floats as base64. Both official clients decode them so."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def encode_vectors(body: bytes) -> bytes:
    """Return an answer of another server with base64 in place of lists of numbers.

    Servers that ignore `encoding_format` send lists, which openai-node decodes as base64 into wrong vectors
    (source: lmstudio-bug-tracker#756). Other greenlets get a turn after each vector.

    Raises:
        UpstreamInvalidResponseError: A vector has something else than numbers.
    """
    return _VECTOR.sub(_encode_vector, body)


def _encode_vector(found: re.Match[bytes]) -> bytes:
    time.sleep(1e-9)
    try:
        return found[1] + b'"' + to_base64([float(number) for number in found[2].split(b",")]).encode() + b'"'
    except (ValueError, OverflowError) as error:
        raise UpstreamInvalidResponseError("The upstream's embeddings contain something else than numbers.") from error
