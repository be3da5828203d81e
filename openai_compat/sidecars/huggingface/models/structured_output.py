"""Answers that must have a form: a JSON object, or what a JSON schema accepts. llguidance decides token by token."""

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

# One way to write white space: a model that may choose can lose itself in blank lines.
LAYOUT: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint:
    """The tokens that one choice may have next."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole, and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, size: int) -> torch.Tensor:
        """A vector of `size` booleans, one for each token of the vocabulary."""
        mask = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        return torch.from_numpy(numpy.unpackbits(mask, count=size, bitorder="little").astype(bool))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)


class ConstraintFactory:
    """Makes constraints for one model's vocabulary, which takes a second to be prepared, at the first use."""

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._preparing = threading.Lock()
        self._vocabulary: llguidance.LLTokenizer | None = None

    def from_schema(self, schema: Mapping[str, Any], param: str) -> Constraint:
        """A constraint to texts in JSON that `schema` accepts.

        Raises:
            PayloadError: the schema is wrong, or uses what cannot be enforced; `param` is where it came from.
        """
        vocabulary = self._prepared()
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=LAYOUT)
        except ValueError as error:
            raise _refusal(str(error), param) from error
        matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
        if matcher.is_error():
            raise _refusal(matcher.get_error(), param)
        return Constraint(matcher)

    def _prepared(self) -> llguidance.LLTokenizer:
        with self._preparing:
            if self._vocabulary is None:
                self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer, n_vocab=self._vocabulary_size)
        return self._vocabulary


def _refusal(reason: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid schema: {reason.strip().splitlines()[0]}", param=param, code="invalid_json_schema"
    )
