"""Parameters of a payload, and the check that a backend supports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai_compat.backends.base import Backend
from openai_compat.core.errors import InvalidRequestError, UnsupportedParameterError

# A parameter that is set to its default asks for nothing.
DEFAULT_VALUES: Mapping[str, Any] = {
    "n": 1,
    "best_of": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "echo": False,
    "suffix": "",
    "response_format": {"type": "text"},
}


def check_supported(
    parameters: Mapping[str, Any], required: frozenset[str], supported: frozenset[str], model: str
) -> None:
    """Raise for the first parameter among `required` that is used and not `supported`.

    Raises:
        UnsupportedParameterError
    """
    for name in _used(parameters):
        if name in required and name not in supported:
            raise UnsupportedParameterError(name, model)


def _used(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in parameters.items():
        if name == "modalities":
            if isinstance(value, list) and "audio" in value:
                yield "audio"
        elif value not in (None, [], {}) and not (name in DEFAULT_VALUES and value == DEFAULT_VALUES[name]):
            yield name


Text = str | Sequence[int]
"""A text, or its token ids."""


def drop_nulls(payload: Mapping[str, Any], *omitted: str) -> dict[str, Any]:
    """Return the fields of a payload that have a value, without those named."""
    return {name: value for name, value in payload.items() if value is not None and name not in omitted}


def drop_empty_tools(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters without an empty list of tools, and without a choice that asks for none of them."""
    for tools, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if parameters.get(tools) == []:
            parameters = {name: value for name, value in parameters.items() if name != tools}
            if parameters.get(choice) in ("auto", "none"):
                del parameters[choice]
    return parameters


def check_stream_options(backend: Backend, payload: Mapping[str, Any]) -> None:
    """Raise for `stream_options` of a call that is not streamed, unless an upstream is to judge it.

    Raises:
        InvalidRequestError
    """
    if backend.judges_requests and payload.get("stream_options") is not None and not payload.get("stream"):
        raise InvalidRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def to_texts(value: Any) -> Sequence[Text]:
    """Return a prompt or input, given in any of its four shapes, as a list with one entry for each text."""
    if isinstance(value, str) or (value and isinstance(value[0], int)):
        return [value]
    return list(value)
