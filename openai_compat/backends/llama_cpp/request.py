"""Differences between OpenAI's requests and refusals and those of llama.cpp."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from openai_compat.backends.http.messages import UpstreamRequest, UpstreamResponse
from openai_compat.backends.parsing.openai_errors import to_status_error
from openai_compat.core.errors import ContextLengthExceededError, OpenAICompatError, UnsupportedParameterError


def adapt(call: UpstreamRequest, model: str) -> tuple[UpstreamRequest, bool]:
    """Return the call for llama.cpp, and True if the model's chat template has to know tools.

    Only bodies with tools are parsed.

    Raises:
        UnsupportedParameterError: the call has `functions`, which llama.cpp would ignore.
    """
    body = call.body
    if not isinstance(body, bytes) or not (b'"tools"' in body or b'"functions"' in body):
        return call, False
    content = json.loads(body)
    if content.get("functions"):
        raise UnsupportedParameterError("functions", model, "use `tools`.")
    has_tools = bool(content.get("tools")) and content.get("tool_choice") != "none"
    if has_tools and isinstance(content.get("tool_choice"), dict):
        return replace(call, body=json.dumps(_force_tool(content)).encode()), True
    return call, has_tools


def _force_tool(content: dict[str, Any]) -> dict[str, Any]:
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
