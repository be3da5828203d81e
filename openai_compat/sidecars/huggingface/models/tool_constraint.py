"""Constraints of the tool calls that a model makes of its own accord, in an answer of free text or of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import llguidance
import torch

from .detokenizer import Detokenizer
from .structured_output import JSON_LAYOUT, Constraint, invalid_schema

if TYPE_CHECKING:
    from .structured_output import ConstraintFactory
    from .tool_formats import ToolFormat

Encode = Callable[[str], list[int]]


class ToolCallConstraint:
    """The tokens that one sequence may have next.

    All are allowed, up to the mark that begins a call. From there on the call must match its schema, and behind it all
    are allowed again.
    """

    is_complete: Final = False
    """A call does not end the answer, since another one may follow."""

    def __init__(self, matcher: llguidance.LLMatcher, begin: str, detokenizer: Detokenizer, encode: Encode) -> None:
        self._matcher = matcher
        self._begin = begin
        self._detokenizer = detokenizer
        self._encode = encode
        self._tail = ""
        """The end of the text, where the mark may have begun."""
        self._call: Constraint | None = None

    def allowed(self, size: int) -> torch.Tensor | None:
        """Return a vector of `size` booleans, one for each token of the vocabulary, or None if all are allowed."""
        return None if self._call is None else self._call.allowed(size)

    def accept(self, token: int) -> None:
        """Advance by one token."""
        text = self._detokenizer.push(token)
        if self._call is not None:
            self._call.accept(token)
            if self._call.is_complete:
                self._call, self._tail = None, ""
            return
        _, mark, after = (self._tail + text).rpartition(self._begin)
        if mark:
            self._start_call(after)
        else:
            self._tail = after[-len(self._begin) :]

    def _start_call(self, begun: str) -> None:
        """Constrain the text from here on. A token may have contained the mark and the beginning of the call.

        What begins differently is left to the parser, which does not take it for a call.
        """
        matcher = self._matcher.deep_copy()
        tokens = self._encode(begun)
        if matcher.try_consume_tokens(tokens) == len(tokens):
            self._call = Constraint(matcher)
        self._tail = ""


SequenceConstraint = Constraint | ToolCallConstraint


def to_tool_call_constraint(
    factory: ConstraintFactory, schema: Mapping[str, Any], begin: str, detokenizer: Detokenizer
) -> ToolCallConstraint | None:
    """Return the constraint of calls that match `schema`, or None if llguidance cannot enforce it."""
    vocabulary = factory.prepare_vocabulary()
    grammar = llguidance.LLMatcher.grammar_from_lark(f"start: /[ \\n]?/ call\ncall: %json {_with_layout(schema)}")
    matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
    if matcher.is_error():
        return None
    return ToolCallConstraint(matcher, begin, detokenizer, vocabulary.tokenize_str)


def to_choice_constraint(
    factory: ConstraintFactory, answer: Mapping[str, Any], call: Mapping[str, Any], format_: ToolFormat
) -> Constraint:
    """Return a constraint to an answer that matches the schema `answer`, or to calls that match the schema `call`.

    Raises:
        InvalidRequestError: a schema is invalid or cannot be enforced.
    """
    vocabulary = factory.prepare_vocabulary()
    begin, end = (_to_terminal(mark, vocabulary) for mark in (format_.begin, format_.end))
    block = f"{begin} GAP? call GAP? {end} GAP?" if end else f"{begin} GAP? call" if begin else "call"
    rules = [
        f"start: answer | block{'+' if end else ''}",
        f"block: {block}",
        "GAP: /[ \\n]/",
        *(f"{name}: %json {_with_layout(schema)}" for name, schema in (("answer", answer), ("call", call))),
    ]
    grammar = llguidance.LLMatcher.grammar_from_lark("\n".join(rules))
    matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
    if not matcher.is_error():
        return Constraint(matcher)
    factory.from_schema(answer, "response_format")
    raise invalid_schema(matcher.get_error(), "tools")


def _with_layout(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": JSON_LAYOUT})


def _to_terminal(mark: str, vocabulary: llguidance.LLTokenizer) -> str:
    """Return a mark as the grammar names it, which is by its number if it is a token of its own."""
    tokens = vocabulary.tokenize_str(mark, parse_special=True)
    if len(tokens) == 1 and vocabulary.is_special_token(tokens[0]):
        return f"<[{tokens[0]}]>"
    return json.dumps(mark) if mark else ""
