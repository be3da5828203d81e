"""Chat calls as requests of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from openai_compat.backends.parameter_checks import stops_of
from openai_compat.core.anthropic import VERSION
from openai_compat.core.errors import UnsupportedParameterError
from openai_compat.core.profiles import DROPPED
from openai_compat.core.types import JSON, ChatRequest, JSONObject

from .content import CACHE_CONTROL
from .history import MessageBuilder
from .thinking import BUDGETS, MIN_BUDGET, Thinking, max_tokens_of, thinking_of, to_adaptive, to_budget
from .tools import FORCED, to_tool_choice, to_tools

EPHEMERAL: Final = {"type": "ephemeral"}
SAMPLING: Final = ("temperature", "top_p", "top_k")
OWN_PARAMETERS: Final = frozenset({"thinking", "top_k"})
"""Parameters of Anthropic's API that pass unchanged, though no chat has them."""
TRANSLATED: Final = frozenset(
    {
        "max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "temperature",
        "top_p", "reasoning_effort", "response_format", "user", "safety_identifier", *OWN_PARAMETERS,
    }
)  # fmt: skip
"""Parameters with a counterpart. Others are left out, and the client is told which."""


@dataclass(frozen=True, slots=True)
class AnthropicOptions:
    """Options of kind `anthropic`.

    `max_tokens` limits answers to calls without a limit, because Anthropic requires one. `cache: auto` marks the tools
    and the system prompt for the prompt cache, unless the client marks something itself. `thinking` says how the model
    takes `reasoning_effort` (`adaptive`, with a token `budget`, or `none`), which `auto` concludes from its name.
    `thinking_budgets` replaces tokens by effort. `betas` are names for the header `anthropic-beta`, with commas.
    """

    max_tokens: int | None = None
    anthropic_version: str = VERSION
    betas: str = ""
    cache: Literal["none", "auto"] = "none"
    thinking: Thinking = "auto"
    thinking_budgets: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be 1 or more")
        for effort, budget in self.thinking_budgets.items():
            if effort not in BUDGETS:
                raise ValueError(f"thinking_budgets: '{effort}' is none of {', '.join(BUDGETS)}")
            if not isinstance(budget, int) or isinstance(budget, bool) or budget < MIN_BUDGET:
                raise ValueError(f"thinking_budgets: {effort} must be a number of tokens, {MIN_BUDGET} or more")


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """A request, and the parameters that were changed or left out, for the header `x-openai-compat-adapted`."""

    body: JSON
    adaptations: dict[str, str]


def translate_request(request: ChatRequest, model: str, options: AnthropicOptions) -> TranslatedRequest:
    """Return the request for Anthropic's `model`.

    Raises:
        InvalidRequestError: A message or a tool has no counterpart. UnsupportedParameterError: So has a parameter.
    """
    parameters = request.parameters
    builder = MessageBuilder()
    builder.add_all(request.messages)
    limit = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    body: JSON = {
        "model": model,
        "max_tokens": limit or options.max_tokens or max_tokens_of(model),
        "messages": builder.messages,
        "stream": request.is_streamed,
    }
    if builder.system:
        body["system"] = builder.system
    body |= _to_tool_fields(parameters) | _to_other_fields(parameters, request.model)
    adaptations = dict.fromkeys(parameters.keys() - TRANSLATED, DROPPED)
    _add_thinking(body, adaptations, parameters, options, is_broken=builder.is_in_tool_loop_without_thinking)
    _adapt_sampling(body, adaptations)
    if options.cache == "auto":
        _mark_for_cache(body)
    return TranslatedRequest(body, adaptations)


def _to_tool_fields(parameters: JSONObject) -> JSON:
    tools = to_tools(parameters)
    choice = to_tool_choice(parameters) if tools else None
    return {**({"tools": tools} if tools else {}), **({"tool_choice": choice} if choice else {})}


def _to_other_fields(parameters: JSONObject, model: str) -> JSON:
    fields: JSON = {name: parameters[name] for name in ("temperature", "top_p", *OWN_PARAMETERS) if name in parameters}
    if stops := stops_of(parameters):
        fields["stop_sequences"] = stops
    if user := parameters.get("safety_identifier") or parameters.get("user"):
        fields["metadata"] = {"user_id": user}
    format_ = parameters.get("response_format") or {"type": "text"}
    if format_["type"] == "json_schema":
        schema = format_["json_schema"].get("schema") or {"type": "object"}
        fields["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif format_["type"] != "text":
        raise UnsupportedParameterError("response_format", model, "Claude needs the schema, as 'json_schema'.")
    return fields


def _add_thinking(
    body: JSON, adaptations: dict[str, str], parameters: JSONObject, options: AnthropicOptions, *, is_broken: bool
) -> None:
    """Turn thinking on for a `reasoning_effort`. It is left out where Claude would refuse the call with it."""
    effort = parameters.get("reasoning_effort")
    if effort in (None, "none") or "thinking" in body:
        return
    mode = thinking_of(body["model"]) if options.thinking == "auto" else options.thinking
    is_forced = (body.get("tool_choice") or {}).get("type") in FORCED
    fields: JSON = {}
    if mode == "adaptive" and not is_forced:
        fields = to_adaptive(effort)
    elif mode == "budget" and not (is_forced or is_broken):
        fields = to_budget(effort, body["max_tokens"], options.thinking_budgets)
    if not fields:
        adaptations["reasoning_effort"] = DROPPED
    if output := fields.pop("output_config", None):
        body["output_config"] = {**body.get("output_config", {}), **output}
    body |= fields


def _adapt_sampling(body: JSON, adaptations: dict[str, str]) -> None:
    """Leave sampling to a model that thinks, and lower a temperature above Anthropic's highest one."""
    if (body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}:
        for name in SAMPLING:
            if body.pop(name, None) is not None:
                adaptations[name] = DROPPED
    if body.get("temperature", 0) > 1:
        body["temperature"] = 1
        adaptations["temperature"] = "1"


def _mark_for_cache(body: JSON) -> None:
    """Mark the end of the tools and of the system prompt, which are the same in all turns of a conversation."""
    messages = [block for message in body["messages"] for block in message["content"]]
    if any(CACHE_CONTROL in block for block in [*body.get("tools", []), *body.get("system", []), *messages]):
        return
    for key in ("tools", "system"):
        if blocks := body.get(key):
            body[key] = [*blocks[:-1], {**blocks[-1], CACHE_CONTROL: EPHEMERAL}]


def merge_betas(*values: str | None) -> str:
    """Return the names of the headers `anthropic-beta`, each once and in their order."""
    names: Iterable[str] = (name.strip() for value in values for name in (value or "").split(","))
    return ",".join(dict.fromkeys(filter(None, names)))


def to_headers(options: AnthropicOptions, sent: Mapping[str, str]) -> dict[str, str]:
    """Return the version and the betas. A client of Anthropic's API has chosen its version, and adds its betas."""
    betas = merge_betas(options.betas, sent.get("anthropic-beta"))
    headers = {"anthropic-version": sent.get("anthropic-version") or options.anthropic_version}
    return {**headers, "anthropic-beta": betas} if betas else headers
