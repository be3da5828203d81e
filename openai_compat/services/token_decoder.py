"""Decoding of token ids that clients send instead of texts to embed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.turns import TimeSlices
from openai_compat.core.vocabularies import CL100K_BASE, Encoding, load_encoding

from .parameters import Text


class TokenDecoder:
    """Decoder of token ids, which are those of the vocabulary cl100k_base.

    It is the vocabulary of OpenAI's embedding models. LangChain also uses it for every model that it does not know.
    `cache_directory` is tiktoken's. The vocabulary is loaded at the first call that needs it.
    """

    def __init__(self, cache_directory: Path | None = None) -> None:
        self._cache_directory = cache_directory

    def decode_all(self, inputs: Sequence[Text]) -> Sequence[Text]:
        """Return the inputs with a text for each list of token ids, or unchanged without the vocabulary.

        Raises:
            InvalidRequestError: a token id is not one of the vocabulary.
        """
        if all(isinstance(content, str) for content in inputs) or self._encoding is None:
            return inputs
        decode = TimeSlices().checked(self._decode)
        return [content if isinstance(content, str) else decode(self._encoding, content) for content in inputs]

    @cached_property
    def _encoding(self) -> Encoding | None:
        return load_encoding(CL100K_BASE, self._cache_directory)

    def _decode(self, encoding: Encoding, tokens: Sequence[int]) -> str:
        invalid = next((token for token in tokens if not 0 <= token < CL100K_BASE.size), None)
        if invalid is not None:
            message = f"Invalid 'input': {invalid} is not a token of {CL100K_BASE.name}. Send the text instead."
            raise InvalidRequestError(message, param="input", code="invalid_token")
        return encoding.decode(tokens)
