"""Differences between OpenAI's requests and refusals and those of llama.cpp."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parameter_checks import Range
from openai_compat.backends.parsing.openai_chat import as_dict
from openai_compat.backends.parsing.openai_errors import to_status_error
from openai_compat.core.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    NotFoundError,
    OpenAICompatError,
    UnsupportedParameterError,
)
from openai_compat.core.large_json import parse_json
from openai_compat.core.profiles import DROPPED, record_adaptations
from openai_compat.core.types import JSON, CallContext

TOOL_PARAMETERS: Final = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")
MEDIA: Final = frozenset({"image_url", "input_audio"})
"""Types of content that a model reads with a projector only."""
TEXTS: Final = frozenset({"text", "input_text", "output_text", "refusal"})
"""Types of content without a file."""
ENDPOINTS: Final = frozenset({"chat/completions", "completions"})
"""Endpoints of llama.cpp that a call may reach. No check of this module knows the bodies of the others."""
MAX_TOP_LOGPROBS: Final = 20
"""OpenAI's limit. llama.cpp has none, and keeps every alternative of every token in memory."""
MAX_LAST_TOKENS: Final = 131_072
"""Maximum tokens that a penalty for repetition considers. llama.cpp reserves memory for as many as a call names."""
_LIMITS: Final = {
    **dict.fromkeys(("top_logprobs", "logprobs", "n_probs"), MAX_TOP_LOGPROBS),
    **dict.fromkeys(("repeat_last_n", "penalty_last_n", "dry_penalty_last_n"), MAX_LAST_TOKENS),
}
_ADDRESS: Final = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def adapt(call: UpstreamRequest, model: str, *, reads_media: bool, slots: int) -> tuple[UpstreamRequest, JSON | None]:
    """Return the call for llama.cpp, and its content if it has tools that the model may call.

    Raises:
        NotFoundError: the endpoint is none of `ENDPOINTS`.
        UnsupportedParameterError: the call has a parameter that llama.cpp would ignore.
        InvalidRequestError: the call has images or audio and the model does not read media, or names their addresses,
            which llama.cpp would fetch. It asks for more answers than there are `slots`, or for more memory than
            `_LIMITS` allow. A tool call in its history has broken arguments.
    """
    content = _read_object(call)
    _check_size(content, slots)
    if call.path.startswith("completions"):
        _check_completion(content, model)
        return call, None
    for number, message in enumerate(_objects(content.get("messages"))):
        _check_media(message, f"messages[{number}]", model, reads_media=reads_media)
        _check_calls(message, f"messages[{number}]")
    if content.get("logprobs") is True and not content.get("top_logprobs"):
        content = {**content, "top_logprobs": 1}  # with 0 it returns none at all, and by default twenty
        call = _with_content(call, content)
    has_tools = content.get("tools") and content.get("tool_choice") != "none"
    has_functions = content.get("functions") and content.get("function_call") != "none"
    return call, content if has_tools or has_functions else None


def _read_object(call: UpstreamRequest) -> JSON:
    """Return the body's JSON object.

    Raises:
        NotFoundError: the endpoint is none of `ENDPOINTS`.
        InvalidRequestError: the body is no JSON object.
    """
    if call.path.partition("?")[0] not in ENDPOINTS:
        raise NotFoundError("This model has no such endpoint.")
    try:
        content = parse_json(call.body) if isinstance(call.body, bytes) else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return content


def _objects(values: Any) -> list[Mapping[str, Any]]:
    """Return the items of a list, empty objects in the place of others."""
    return [as_dict(value) for value in values] if isinstance(values, list) else []


def _check_size(content: JSON, slots: int) -> None:
    """Check what a call of one lease may take. llama.cpp makes a task of each prompt and choice."""
    prompts = content.get("prompt")
    items = prompts if isinstance(prompts, list) else []
    several = [] if any(isinstance(item, int) for item in items) else items  # with a number it is one prompt
    choices = [value for name in ("n", "n_cmpl") if isinstance(value := content.get(name), int | float)]
    answers = max(len(several), 1) * max([1, *choices])
    if answers > slots:
        raise InvalidRequestError(
            f"This model writes at most {slots} answers at once (`max_batch` in its entry of the models file), and the "
            f"call asks for {answers}.",
            param="prompt" if several else "n",
        )
    for name, limit in _LIMITS.items():
        if isinstance(value := content.get(name), int | float):
            Range(-1, limit).check(value, name)  # -1 is the context window


def _check_completion(content: JSON, model: str) -> None:
    ignored = {
        "echo": bool(content.get("echo")),
        "suffix": bool(content.get("suffix")),
        "best_of": (content.get("best_of") or 1) > (content.get("n") or 1),
    }
    for name in (name for name, is_used in ignored.items() if is_used):
        raise UnsupportedParameterError(name, model)


def _check_media(message: Mapping[str, Any], path: str, model: str, *, reads_media: bool) -> None:
    for index, part in enumerate(_objects(message.get("content"))):
        param = f"{path}.content[{index}]"
        if not reads_media and part.get("type") in MEDIA:
            raise InvalidRequestError(
                f"Invalid '{param}': the model '{model}' reads text only. For images and audio, its entry of the "
                "models file needs `mmproj_file`.",
                param=param,
            )
        if part.get("type") not in TEXTS and any(map(_names_address, part.values())):
            raise InvalidRequestError(
                f"Invalid '{param}': this server fetches no addresses. Send the file as a `data:` URL.", param=param
            )


def _names_address(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_names_address, value.values()))
    return isinstance(value, str) and _ADDRESS.match(value) is not None


def _check_calls(message: Mapping[str, Any], path: str) -> None:
    """Check the arguments of earlier calls, as llama.cpp answers with 500. Those of a call that was cut are broken."""
    for index, call in enumerate(_objects(message.get("tool_calls"))):
        arguments = as_dict(call.get("function")).get("arguments")
        try:
            if isinstance(arguments, str) and arguments:
                json.loads(arguments)
        except (ValueError, RecursionError) as error:
            param = f"{path}.tool_calls[{index}].function.arguments"
            raise InvalidRequestError(f"Invalid '{param}': it is not valid JSON.", param=param) from error


def offer_tools(call: UpstreamRequest, content: JSON, model: str) -> UpstreamRequest:
    """Return the call with the tools that `tool_choice` allows. llama.cpp knows no choice of certain tools.

    Raises:
        UnsupportedParameterError: a tool is no function, or the call has `functions`, which llama.cpp would ignore.
        InvalidRequestError: `tool_choice` names a tool that the request does not have.
    """
    if content.get("functions"):
        raise UnsupportedParameterError("functions", model, "use `tools`.")
    if any(tool.get("type", "function") != "function" for tool in content["tools"]):
        raise UnsupportedParameterError("tools", model, "only tools of the type 'function' are.")
    choice = content.get("tool_choice")
    if not isinstance(choice, dict):
        return call
    tools = {_name_of(tool): tool for tool in content["tools"]}
    allowed = [_name_of(tool) for tool in _allowed_tools(choice)]
    unknown = next((name for name in allowed if name not in tools), None)
    if unknown is not None:
        raise InvalidRequestError(f"Invalid 'tool_choice': there is no tool '{unknown}'.", param="tool_choice")
    mode = "required" if _requires_call(choice) else "auto"
    return _with_content(call, {**content, "tools": [tools[name] for name in allowed], "tool_choice": mode})


def _allowed_tools(choice: JSON) -> list[Any]:
    if choice.get("type") != "allowed_tools":
        return [choice]
    tools: list[Any] = (choice.get("allowed_tools") or {}).get("tools") or []
    return tools


def _requires_call(choice: Any) -> bool:
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return bool((choice.get("allowed_tools") or {}).get("mode") == "required")
    return choice == "required" or isinstance(choice, dict)


def _name_of(tool: Any) -> str:
    named = tool.get("function") or tool.get("custom") if isinstance(tool, Mapping) else None
    return str(named.get("name")) if isinstance(named, Mapping) else ""


def drop_tools(call: UpstreamRequest, content: JSON, model: str, context: CallContext) -> UpstreamRequest:
    """Return the call without tools, which the model's chat template would ignore. A response header lists them.

    Raises:
        UnsupportedParameterError: the call requires a tool.
    """
    for choice in ("tool_choice", "function_call"):
        if _requires_call(content.get(choice)):
            raise UnsupportedParameterError(
                choice,
                model,
                "its chat template has no format for tools, so that a call cannot be required. Set `tools: prompt` in "
                "its entry of the models file to emulate them.",
            )
    record_adaptations({name: DROPPED for name in TOOL_PARAMETERS if name in content}, context.reply_headers)
    return _with_content(call, {name: value for name, value in content.items() if name not in TOOL_PARAMETERS})


def _with_content(call: UpstreamRequest, content: JSON) -> UpstreamRequest:
    return replace(call, body=json.dumps(content).encode(), body_length=None)


def read_refusal(response: UpstreamResponse) -> OpenAICompatError:
    """Return the error of a request that llama.cpp refused. Too long a prompt gets OpenAI's status and code."""
    body = response.read()
    try:
        error = json.loads(body)["error"]
        return ContextLengthExceededError(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    except (ValueError, KeyError, TypeError):
        return to_status_error(response.status, body)
