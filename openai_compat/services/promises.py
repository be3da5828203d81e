"""What a request asks for that a backend must be able to keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UnsupportedParameterError

# A value that asks for nothing: the parameter's default, spelled out.
_HARMLESS: Mapping[str, Any] = {
    "n": 1,
    "best_of": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "echo": False,
    "suffix": "",
    "response_format": {"type": "text"},
}


def check_promises(parameters: Mapping[str, Any], asked: frozenset[str], kept: frozenset[str], model: str) -> None:
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
        elif value not in (None, [], {}) and not (name in _HARMLESS and value == _HARMLESS[name]):
            yield name
