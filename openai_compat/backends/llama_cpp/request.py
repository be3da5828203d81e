"""Differences between OpenAI's requests and refusals and those of llama.cpp."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.openai_errors import to_status_error
from openai_compat.core.errors import ContextLengthExceededError, OpenAICompatError, UnsupportedParameterError
from openai_compat.core.profiles import DROPPED, record_adaptations
from openai_compat.core.types import JSON, CallContext

TOOL_PARAMETERS: Final = ("tools", "tool_choice", "parallel_tool_calls")


def adapt(call: UpstreamRequest, model: str) -> tuple[UpstreamRequest, JSON | None]:
    """Return the call for llama.cpp, and its content if it has tools that the model may call.

    Only bodies with tools are parsed.

    Raises:
        UnsupportedParameterError: the call has `functions`, which llama.cpp would ignore.
    """
    body = call.body
    if not isinstance(body, bytes) or not (b'"tools"' in body or b'"functions"' in body):
        return call, None
    content: JSON = json.loads(body)
    if content.get("functions"):
        raise UnsupportedParameterError("functions", model, "use `tools`.")
    if not content.get("tools") or content.get("tool_choice") == "none":
        return call, None
    if isinstance(content.get("tool_choice"), dict):
        content = _force_tool(content)
        return _with_content(call, content), content
    return call, content


def drop_tools(call: UpstreamRequest, content: JSON, model: str, context: CallContext) -> UpstreamRequest:
    """Return the call without tools, which the model's chat template would ignore. A response header lists them.

    Raises:
        UnsupportedParameterError: the call requires a tool.
    """
    if content.get("tool_choice") == "required":
        raise UnsupportedParameterError(
            "tool_choice",
            model,
            "its chat template has no format for tools, so that a call cannot be required. Set `tools: prompt` in its "
            "entry of the models file to emulate them.",
        )
    record_adaptations({name: DROPPED for name in TOOL_PARAMETERS if name in content}, context.reply_headers)
    return _with_content(call, {name: value for name, value in content.items() if name not in TOOL_PARAMETERS})


def _with_content(call: UpstreamRequest, content: JSON) -> UpstreamRequest:
    return replace(call, body=json.dumps(content).encode(), body_length=None)


def _force_tool(content: JSON) -> JSON:
    """Return a request that offers only the tool which it requires. llama.cpp knows no choice of one tool."""
    wanted = (content["tool_choice"].get("function") or {}).get("name")
    tools = [tool for tool in content["tools"] if (tool.get("function") or {}).get("name") == wanted]
    return {**content, "tools": tools or content["tools"], "tool_choice": "required"}


def read_refusal(response: UpstreamResponse) -> OpenAICompatError:
    """Return the error of a request that llama.cpp refused. Too long a prompt gets OpenAI's status and code."""
    body = response.read()
    try:
        error = json.loads(body)["error"]
        return ContextLengthExceededError(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    except (ValueError, KeyError, TypeError):
        return to_status_error(response.status, body)
