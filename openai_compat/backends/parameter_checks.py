"""Checks the values of OpenAI's parameters for backends that answer themselves.

The web layer has checked types and structure for every model. Ranges and combinations are checked here, and only
where no upstream judges them. The words are OpenAI's, so that a client's error handling can be tried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import ChatRequest, CompletionRequest, EmbeddingsRequest, JSONObject


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a number may have, both bounds included."""

    least: float
    most: float | None = None

    def check(self, value: float, param: str) -> None:
        """Raises PayloadError where the value is outside."""
        kind = "integer" if isinstance(value, int) else "decimal"
        if not value >= self.least:
            raise _out_of_range(
                param, f"{kind} below minimum value", f">= {self.least}", value, f"{kind}_below_min_value"
            )
        if self.most is not None and value > self.most:
            raise _out_of_range(
                param, f"{kind} above maximum value", f"<= {self.most}", value, f"{kind}_above_max_value"
            )


def _out_of_range(param: str, problem: str, expected: str, value: float, code: str) -> InvalidRequestError:
    message = f"Invalid '{param}': {problem}. Expected a value {expected}, but got {value} instead."
    return InvalidRequestError(message, param=param, code=code)


SAMPLING_RANGES: Final = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1),
    "n": Range(1, 128),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
}
CHAT_RANGES: Final = {
    **SAMPLING_RANGES,
    "top_logprobs": Range(0, 20),
    "max_tokens": Range(1),
    "max_completion_tokens": Range(1),
}
COMPLETION_RANGES: Final = {
    **SAMPLING_RANGES,
    "logprobs": Range(0, 5),
    "max_tokens": Range(0),
    "best_of": Range(1, 20),
}
EMBEDDING_INPUTS: Final = 2048
"""How many inputs one embeddings call may have."""
PROMPTS: Final = 2048
"""How many prompts one completions call may have: as many as there may be inputs."""
STOPS: Final = 4
TOOLS: Final = 128


def check_chat(request: ChatRequest) -> None:
    """Raises PayloadError for the first parameter of a chat call whose value cannot be meant."""
    parameters = request.parameters
    _check_length(request.messages, "messages", 1)
    _check_ranges(parameters, CHAT_RANGES)
    _check_stop(parameters)
    if parameters.get("top_logprobs") and not parameters.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise InvalidRequestError(message, param="top_logprobs")
    if "tools" in parameters:
        _check_length(parameters["tools"], "tools", 1, TOOLS)
    for choice, needed in (("tool_choice", "tools"), ("function_call", "functions")):
        if choice in parameters and "tools" not in parameters:
            raise InvalidRequestError(f"'{choice}' is only allowed when '{needed}' are specified.", param=choice)


def check_completion(request: CompletionRequest) -> None:
    """Raises PayloadError for the first parameter of a completions call whose value cannot be meant."""
    parameters = request.parameters
    _check_length(request.prompts, "prompt", 1, PROMPTS)
    _check_ranges(parameters, COMPLETION_RANGES)
    _check_stop(parameters)
    choices = parameters.get("n", 1)
    candidates = parameters.get("best_of", choices)
    if candidates < choices:
        raise InvalidRequestError(f"'best_of' ({candidates}) must not be less than 'n' ({choices}).", param="best_of")


def check_embeddings(request: EmbeddingsRequest, most_dimensions: int) -> None:
    """Raises PayloadError for inputs or `dimensions` that cannot be meant."""
    _check_length(request.inputs, "input", 1, EMBEDDING_INPUTS)
    if any(len(content) == 0 for content in request.inputs):
        raise InvalidRequestError("'input' cannot contain an empty string or an empty list of tokens.", param="input")
    if request.dimensions is not None:
        Range(1, most_dimensions).check(request.dimensions, "dimensions")


def stops_of(parameters: JSONObject) -> list[str]:
    """The strings that end an answer: `stop` is one or a list of them."""
    stop = parameters.get("stop", [])
    return [stop] if isinstance(stop, str) else list(stop)


def _check_ranges(parameters: JSONObject, ranges: Mapping[str, Range]) -> None:
    for param, range_ in ranges.items():
        if param in parameters:
            range_.check(parameters[param], param)


def _check_stop(parameters: JSONObject) -> None:
    stops = stops_of(parameters)
    _check_length(stops, "stop", 0, STOPS)
    if "" in stops:
        raise InvalidRequestError("Invalid 'stop': it must not contain an empty string.", param="stop")


def _check_length(values: Sized, param: str, least: int, most: int | None = None) -> None:
    """Checks an array's length."""
    if len(values) < least:
        expected = f"Expected an array with minimum length {least}, but got an empty array instead."
        raise InvalidRequestError(f"Invalid '{param}': empty array. {expected}", param=param, code="empty_array")
    if most is not None and len(values) > most:
        expected = f"Expected an array with maximum length {most}, but got an array with length {len(values)} instead."
        message = f"Invalid '{param}': array too long. {expected}"
        raise InvalidRequestError(message, param=param, code="array_above_max_length")
