"""Structured output, a JSON object or one that matches a schema, which llguidance enforces token by token."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Final

import llguidance
import llguidance.hf
import numpy
import torch

from openai_compat.core.errors import InvalidRequestError

JSON_LAYOUT: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""A single layout. Models that may choose their white space can go on with blank lines for ever."""


class Constraint:
    """The tokens that one sequence may have next."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_complete(self) -> bool:
        """Return True if the text is complete, so that nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, size: int) -> torch.Tensor:
        """Return a vector of `size` booleans, one for each token of the vocabulary."""
        mask = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        return torch.from_numpy(numpy.unpackbits(mask, count=size, bitorder="little").astype(bool))

    def accept(self, token: int) -> None:
        """Advance by one token."""
        self._matcher.consume_token(token)


class ConstraintFactory:
    """Factory of constraints for one model's vocabulary, which takes a second to prepare on first use."""

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._vocabulary_lock = threading.Lock()
        self._vocabulary: llguidance.LLTokenizer | None = None

    def from_schema(self, schema: Mapping[str, Any], param: str) -> Constraint:
        """Return a constraint to JSON texts that match `schema`.

        Raises:
            InvalidRequestError: the schema is invalid or cannot be enforced. `param` is the request's parameter that
                has it.
        """
        vocabulary = self.prepare_vocabulary()
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=JSON_LAYOUT)
        except ValueError as error:
            raise invalid_schema(str(error), param) from error
        matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
        if matcher.is_error():
            raise invalid_schema(matcher.get_error(), param)
        return Constraint(matcher)

    def prepare_vocabulary(self) -> llguidance.LLTokenizer:
        """Return the model's vocabulary as llguidance uses it."""
        with self._vocabulary_lock:
            if self._vocabulary is None:
                # Either may be larger. Models have padding, and Gemma 3's tokenizer has a token that small models lack.
                size = max(self._vocabulary_size, len(self._tokenizer))
                self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer, n_vocab=size)
        return self._vocabulary


def invalid_schema(reason: str, param: str) -> InvalidRequestError:
    """Return the error for a schema that llguidance rejects."""
    return InvalidRequestError(
        f"Invalid schema: {reason.strip().splitlines()[0]}", param=param, code="invalid_json_schema"
    )
