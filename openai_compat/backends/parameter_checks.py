"""Checks of parameter values for backends that have no upstream to check them.

The web layer has already checked types and structure. Ranges and combinations are checked here. The messages are
OpenAI's, so that clients can test their error handling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.types import ChatRequest, CompletionRequest, EmbeddingsRequest, JSONObject

VOCABULARY_MISSING: Final = (
    "Invalid type for 'input': this model takes texts. Token ids need the vocabulary of OpenAI's models, which is not "
    "installed here. Send texts (with LangChain: check_embedding_ctx_length=False), or install the extra `tokens`: "
    "pip install 'openai-compat[tokens]'."
)


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range of numbers. A `maximum` of None is unlimited."""

    minimum: float
    maximum: float | None = None

    def check(self, value: float, param: str) -> None:
        """Raise InvalidRequestError if the value of `param` is out of range."""
        kind = "integer" if isinstance(value, int) else "decimal"
        if not value >= self.minimum:
            raise _out_of_range(
                param, f"{kind} below minimum value", f">= {self.minimum}", value, f"{kind}_below_min_value"
            )
        if self.maximum is not None and value > self.maximum:
            raise _out_of_range(
                param, f"{kind} above maximum value", f"<= {self.maximum}", value, f"{kind}_above_max_value"
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
MAX_EMBEDDING_INPUTS: Final = 2048
MAX_PROMPTS: Final = 2048
MAX_STOP_STRINGS: Final = 4
MAX_TOOLS: Final = 128
ROLES: Final = ("system", "assistant", "user", "function", "tool", "developer")


def check_chat(request: ChatRequest) -> None:
    """Raise InvalidRequestError for the first parameter of a chat call with an invalid value."""
    parameters = request.parameters
    _check_length(request.messages, "messages", 1)
    _check_ranges(parameters, CHAT_RANGES)
    _check_stop(parameters)
    if parameters.get("top_logprobs") and not parameters.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise InvalidRequestError(message, param="top_logprobs")
    if "tools" in parameters:
        _check_length(parameters["tools"], "tools", 1, MAX_TOOLS)
    for param, required in (("tool_choice", "tools"), ("function_call", "functions")):
        if param in parameters and "tools" not in parameters:
            raise InvalidRequestError(f"'{param}' is only allowed when '{required}' are specified.", param=param)


def check_roles(messages: Sequence[JSONObject]) -> None:
    """Raise InvalidRequestError for the first message with a role that OpenAI's models do not know."""
    for index, message in enumerate(messages):
        if message["role"] not in ROLES:
            supported = ", ".join(f"'{role}'" for role in ROLES[:-1])
            raise InvalidRequestError(
                f"Invalid value: '{message['role']}'. Supported values are: {supported}, and '{ROLES[-1]}'.",
                param=f"messages[{index}].role",
                code="invalid_value",
            )


def check_completion(request: CompletionRequest) -> None:
    """Raise InvalidRequestError for the first parameter of a completions call with an invalid value."""
    parameters = request.parameters
    _check_length(request.prompts, "prompt", 1, MAX_PROMPTS)
    _check_ranges(parameters, COMPLETION_RANGES)
    _check_stop(parameters)
    choices = parameters.get("n", 1)
    candidates = parameters.get("best_of", choices)
    if candidates < choices:
        raise InvalidRequestError(f"'best_of' ({candidates}) must not be less than 'n' ({choices}).", param="best_of")


def check_embeddings(request: EmbeddingsRequest, max_dimensions: int) -> None:
    """Raise InvalidRequestError for invalid inputs or `dimensions`."""
    _check_length(request.inputs, "input", 1, MAX_EMBEDDING_INPUTS)
    if any(len(content) == 0 for content in request.inputs):
        raise InvalidRequestError("'input' cannot contain an empty string or an empty list of tokens.", param="input")
    if request.dimensions is not None:
        Range(1, max_dimensions).check(request.dimensions, "dimensions")


def require_text(content: str | Sequence[int]) -> str:
    """Return an input of an embeddings call that is a text. Raise InvalidRequestError for token ids."""
    if not isinstance(content, str):
        raise InvalidRequestError(VOCABULARY_MISSING, param="input", code="invalid_type")
    return content


def stops_of(parameters: JSONObject) -> list[str]:
    """Return the stop strings. The parameter `stop` is a string or a list of strings."""
    stop = parameters.get("stop", [])
    return [stop] if isinstance(stop, str) else list(stop)


def _check_ranges(parameters: JSONObject, ranges: Mapping[str, Range]) -> None:
    for param, range_ in ranges.items():
        if param in parameters:
            range_.check(parameters[param], param)


def _check_stop(parameters: JSONObject) -> None:
    stops = stops_of(parameters)
    _check_length(stops, "stop", 0, MAX_STOP_STRINGS)
    if "" in stops:
        raise InvalidRequestError("Invalid 'stop': it must not contain an empty string.", param="stop")


def _check_length(values: Sized, param: str, minimum: int, maximum: int | None = None) -> None:
    if len(values) < minimum:
        expected = f"Expected an array with minimum length {minimum}, but got an empty array instead."
        raise InvalidRequestError(f"Invalid '{param}': empty array. {expected}", param=param, code="empty_array")
    if maximum is not None and len(values) > maximum:
        got = f"but got an array with length {len(values)} instead."
        expected = f"Expected an array with maximum length {maximum}, {got}"
        message = f"Invalid '{param}': array too long. {expected}"
        raise InvalidRequestError(message, param=param, code="array_above_max_length")
