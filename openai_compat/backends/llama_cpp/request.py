"""Differences between OpenAI's requests and refusals and those of llama.cpp."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.openai_errors import to_status_error
from openai_compat.core.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    OpenAICompatError,
    UnsupportedParameterError,
)
from openai_compat.core.large_json import parse_json
from openai_compat.core.profiles import DROPPED, record_adaptations
from openai_compat.core.types import JSON, CallContext

TOOL_PARAMETERS: Final = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")
MEDIA: Final = frozenset({"image_url", "input_audio"})
"""Types of content that a model reads with a projector only."""
_OF_NOTE: Final = re.compile(rb'"(?:tools|functions|echo|suffix|best_of)"')
_OF_NOTE_TO_TEXT_MODELS: Final = re.compile(rb'"(?:tools|functions|echo|suffix|best_of|image_url|input_audio)"')


def adapt(call: UpstreamRequest, model: str, *, reads_media: bool) -> tuple[UpstreamRequest, JSON | None]:
    """Return the call for llama.cpp, and its content if it has tools that the model may call.

    Only bodies that name a parameter of note are parsed.

    Raises:
        UnsupportedParameterError: the call has a parameter that llama.cpp would ignore.
        InvalidRequestError: the call has images or audio, and the model does not read media.
    """
    body = call.body
    of_note = _OF_NOTE if reads_media else _OF_NOTE_TO_TEXT_MODELS
    if not isinstance(body, bytes) or not of_note.search(body):
        return call, None
    content: JSON = parse_json(body)
    if call.path.startswith("completions"):
        _check_completion(content, model)
        return call, None
    if not reads_media:
        _check_media(content, model)
    has_tools = content.get("tools") and content.get("tool_choice") != "none"
    has_functions = content.get("functions") and content.get("function_call") != "none"
    return call, content if has_tools or has_functions else None


def _check_completion(content: JSON, model: str) -> None:
    ignored = {
        "echo": bool(content.get("echo")),
        "suffix": bool(content.get("suffix")),
        "best_of": (content.get("best_of") or 1) > (content.get("n") or 1),
    }
    for name in (name for name, is_used in ignored.items() if is_used):
        raise UnsupportedParameterError(name, model)


def _check_media(content: JSON, model: str) -> None:
    for number, message in enumerate(content.get("messages") or ()):
        parts = message.get("content")
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if part.get("type") in MEDIA:
                path = f"messages[{number}].content[{index}]"
                raise InvalidRequestError(
                    f"Invalid '{path}': the model '{model}' reads text only. For images and audio, its entry of the "
                    "models file needs `mmproj_file`.",
                    param=path,
                )


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
