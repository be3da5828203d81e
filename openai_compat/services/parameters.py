"""What a request asks for that a backend must be able to keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai_compat.core.errors import UnsupportedParameterError

# A value that asks for nothing: the parameter's default, spelled out.
DEFAULT_VALUES: Mapping[str, Any] = {
    "n": 1,
    "best_of": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "echo": False,
    "suffix": "",
    "response_format": {"type": "text"},
}


def check_supported(parameters: Mapping[str, Any], asked: frozenset[str], kept: frozenset[str], model: str) -> None:
    """Refuses, by name, the first parameter among `asked` that is used and not `kept`.

    Raises:
        UnsupportedParameterError
    """
    for name in _used(parameters):
        if name in asked and name not in kept:
            raise UnsupportedParameterError(name, model)


def _used(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if name == "modalities":
            if isinstance(value, list) and "audio" in value:
                yield "audio"
        elif value not in (None, [], {}) and not (name in DEFAULT_VALUES and value == DEFAULT_VALUES[name]):
            yield name


Text = str | Sequence[int]
"""A text, or the token ids of one."""


def drop_nulls(payload: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """The parameters of a payload: what was given a value, but for the fields that have a place of their own."""
    return {name: value for name, value in payload.items() if value is not None and name not in left_out}


def to_texts(value: Any) -> Sequence[Text]:
    """A prompt or input in any of its four shapes, as a list with one entry a text."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return [value]
    return list(value)
