"""What each kind of backend does with each parameter of a call."""

from __future__ import annotations

from typing import Final

from openai_compat.backends.anthropic.request import TRANSLATED
from openai_compat.backends.base import (
    CHAT_PARAMETERS,
    COMPLETION_PARAMETERS,
    Backend,
    SupportsChat,
    SupportsCompletions,
    SupportsForwarding,
)
from openai_compat.backends.registry import load_backend_class
from openai_compat.core.profiles import DROPPED, PROFILES, Profile
from openai_compat.sidecars.huggingface.models.supported_parameters import (
    SAMPLED,
    SUPPORTED_CHAT_PARAMETERS,
    SUPPORTED_COMPLETION_PARAMETERS,
    TEMPLATE_PARAMETERS,
)
from openai_compat.web.schemas.chat import ChatRequestSchema
from openai_compat.web.schemas.completions import CompletionRequestSchema

ANTHROPIC: Final = "anthropic"
HUGGINGFACE: Final = "huggingface"
LLAMA_CPP: Final = "llama_cpp"
OFFLINE_KINDS: Final = frozenset({"echo"})
"""Kinds without an upstream. They ignore parameters that other kinds forward."""
SERVICE_PARAMETERS: Final = frozenset({"messages", "prompt", "model", "stream", "stream_options"})
"""Parameters that the service handles for every kind."""
DEPENDS_ON: Final = {
    "tool_choice": "tools",
    "parallel_tool_calls": "tools",
    "function_call": "functions",
    "modalities": "audio",
}
"""Parameters that have no effect without another one, and are treated as it is."""
TOOL_PARAMETERS: Final = frozenset(
    {"functions", *(name for name, other in DEPENDS_ON.items() if other in {"tools", "functions"})}
)
FUNCTION_PARAMETERS: Final = frozenset({"functions", "function_call"})
BY_TEMPLATE: Final = "by template"
"""Supported by models whose chat template supports tools, dropped for others."""

LLAMA_CPP_CHAT: Final = {
    **dict.fromkeys(("tools", *TOOL_PARAMETERS), BY_TEMPLATE),
    **dict.fromkeys(FUNCTION_PARAMETERS, "rejected or dropped"),
}
LLAMA_CPP_COMPLETIONS: Final = dict.fromkeys(("best_of", "echo", "suffix"), "rejected")


def treatment_of(kind: str, parameter: str, *, is_chat: bool) -> str:
    """Return what a kind of backend does with a parameter.

    The result is `supported`, `by template`, `forwarded`, ``as `NAME` `` for a renamed parameter, `dropped`, `ignored`,
    `rejected`, `rejected or dropped` by the template, or `no endpoint` if the kind does not serve such calls.
    """
    if kind == HUGGINGFACE:
        return _local_treatment_of(parameter, is_chat=is_chat)
    if kind == LLAMA_CPP and parameter in (own := LLAMA_CPP_CHAT if is_chat else LLAMA_CPP_COMPLETIONS):
        return own[parameter]
    backend_class = load_backend_class(kind)
    profile = PROFILES.get(kind, Profile())
    if parameter in profile.rename:
        return f"as `{profile.rename[parameter]}`"
    if profile.strips(parameter):
        return DROPPED
    if issubclass(backend_class, SupportsForwarding):
        return "forwarded"
    supported = _supported_parameters(backend_class, is_chat=is_chat)
    if supported is None:
        return "no endpoint"
    base = DEPENDS_ON.get(parameter, parameter)
    if base in (CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS) and base not in supported:
        return DROPPED if base in {"tools", "functions"} else "rejected"
    if kind == ANTHROPIC:
        return "supported" if parameter in TRANSLATED or base in supported else DROPPED
    if kind not in OFFLINE_KINDS:
        return "forwarded"
    return "supported" if base in supported else "ignored"


def _local_treatment_of(parameter: str, *, is_chat: bool) -> str:
    """Return what the engine does with a parameter. The backend of this kind only forwards to it."""
    base = "tools" if is_chat and parameter in TOOL_PARAMETERS else DEPENDS_ON.get(parameter, parameter)
    if base in (SUPPORTED_CHAT_PARAMETERS if is_chat else SUPPORTED_COMPLETION_PARAMETERS) | SAMPLED:
        return "supported"
    if is_chat and base in TEMPLATE_PARAMETERS:
        return BY_TEMPLATE
    return "rejected" if base in (CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS) else "ignored"


def _supported_parameters(backend_class: type[Backend], *, is_chat: bool) -> frozenset[str] | None:
    if is_chat:
        return backend_class.supported_chat_parameters if issubclass(backend_class, SupportsChat) else None
    return backend_class.supported_completion_parameters if issubclass(backend_class, SupportsCompletions) else None


def parameters_of(*, is_chat: bool) -> list[str]:
    """Return the documented parameters of a call, those that a backend must support or reject first."""
    schema = ChatRequestSchema() if is_chat else CompletionRequestSchema()
    checked = CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS
    names = [name for name in schema.fields if name not in SERVICE_PARAMETERS]
    return sorted(names, key=lambda name: (DEPENDS_ON.get(name, name) not in checked, name))
