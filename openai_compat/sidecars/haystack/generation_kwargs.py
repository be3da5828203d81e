"""A request's parameters as the `generation_kwargs` of a component."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from haystack.components.generators.chat import OpenAIChatGenerator
from openai.resources.chat.completions import Completions

from openai_compat.core.errors import UnsupportedParameterError

CLIENT_OPTIONS: Final = frozenset({"extra_body", "extra_headers", "extra_query", "timeout"})
"""Arguments of OpenAI's client that are no parameters of its API. `extra_body` replaces model and messages."""
API_PARAMETERS: Final = frozenset(inspect.signature(Completions.create).parameters)


def check_parameters(parameters: Mapping[str, Any], model: str) -> None:
    """Reject arguments of OpenAI's client.

    Raises:
        UnsupportedParameterError: a parameter would replace what the pipeline sends.
    """
    for name in parameters:
        if name in CLIENT_OPTIONS:
            raise UnsupportedParameterError(name, model)


def to_generation_kwargs(parameters: Mapping[str, Any], component: Any) -> dict[str, Any]:
    """Return the parameters as the component takes them.

    OpenAI's client rejects parameters that it does not know, such as `top_k`, unless they are in its `extra_body`.
    """
    generator = getattr(component, "chat_generator", component)
    unknown = {name: value for name, value in parameters.items() if name not in API_PARAMETERS}
    if not unknown or not isinstance(generator, OpenAIChatGenerator):
        return dict(parameters)
    known = {name: value for name, value in parameters.items() if name in API_PARAMETERS}
    return {**known, "extra_body": {**generator.generation_kwargs.get("extra_body", {}), **unknown}}
