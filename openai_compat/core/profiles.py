"""Parameter profiles of upstreams that support only some of OpenAI's parameters.

An entry of the models file names a profile (`profile: databricks`) or defines one (`profile: {drop: [user]}`). A
response header lists the adapted parameters, unless the profile is `strict` and rejects the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import is_
from types import MappingProxyType
from typing import Any, Final

from .errors import UnsupportedParameterError

EMULATIONS: Final = frozenset({"stream_options"})
"""Parameters that this server can implement for an upstream.

For `stream_options.include_usage`, it adds the usage to the end of the stream.
"""
ADAPTED_HEADER: Final = "x-openai-compat-adapted"
DROPPED: Final = "dropped"
MESSAGES: Final = "messages."
"""Prefix of a message's key, such as the `name` of every message in `messages.name`."""
_SHOWN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Keys of messages, which clients choose, that may stand in a header."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Changes to the parameters of a request before it is sent to the upstream.

    Attributes:
        drop: Parameters to remove.
        rename: The upstream's names of parameters.
        emulate: Parameters to remove and to implement here.
        roles: The upstream's names of message roles.
        message_keys: The keys of a message that the upstream knows, beside `role`. Others are removed. An empty set
            means that it ignores the keys that it does not know.
        translate_responses: Whether to translate chat responses, because the upstream's differ from OpenAI's (content
            as a list of parts).
        strict: Whether to reject a request instead of adapting it.
    """

    drop: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    emulate: frozenset[str] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)
    message_keys: frozenset[str] = frozenset()
    translate_responses: bool = False
    strict: bool = False

    def strips(self, parameter: str) -> bool:
        """Return True if the upstream must not receive a parameter of this name."""
        return parameter in self.drop or parameter in self.emulate or parameter in self.rename


PROFILES: Final = MappingProxyType(
    {
        # Sources: Databricks' Foundation Model API reference (the fields that it lists), `400 json: unknown field
        # "stream_options"` (continuedev/continue#12936), content as a list of parts from its reasoning models,
        # `messages.1.thinking_blocks: Extra inputs are not permitted` (litellm#36931).
        "databricks": Profile(
            drop=frozenset(
                {
                    "frequency_penalty", "messages.name", "metadata", "moderation", "parallel_tool_calls",
                    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options",
                    "prompt_cache_retention", "safety_identifier", "seed", "service_tier", "store", "user",
                    "verbosity",
                }
            ),
            rename={"max_completion_tokens": "max_tokens"},
            emulate=frozenset({"stream_options"}),
            roles={"developer": "system"},
            message_keys=frozenset({"content", "tool_calls", "tool_call_id"}),
            translate_responses=True,
        ),
    }
)  # fmt: skip
"""Profiles that an entry can name."""


def apply_profile(profile: Profile, payload: Mapping[str, Any], model: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return the payload for the upstream and the adaptations.

    The adaptations are such as `{"user": "dropped", "max_completion_tokens": "max_tokens", "stream_options":
    "emulated"}`. A payload that needs no change is returned as the same object. Stripped parameters with the value null
    are removed and not listed.

    Raises:
        UnsupportedParameterError: The profile is strict, and the payload needs an adaptation.
    """
    changed: dict[str, Any] = {}
    adapted: dict[str, str] = {}
    for name, value in payload.items():
        if name == "messages":
            changed[name] = _adapt_messages(profile, value, adapted)
        elif not profile.strips(name):
            if value is not None or name not in changed:  # a renamed parameter may have set it
                changed[name] = value
        elif value is not None:
            adapted[name] = _adapt(profile, name, payload)
            if name in profile.rename and adapted[name] != DROPPED:
                changed[profile.rename[name]] = value
    if profile.strict and adapted:
        raise UnsupportedParameterError(next(iter(adapted)), model)
    is_changed = adapted or changed.keys() != payload.keys() or changed.get("messages") is not payload.get("messages")
    return (changed, adapted) if is_changed else (payload, adapted)


def _adapt(profile: Profile, name: str, payload: Mapping[str, Any]) -> str:
    """Return the adaptation of one parameter.

    A parameter is dropped if the request also has the one that it would be renamed to.
    """
    if name in profile.rename:
        upstream_name = profile.rename[name]
        return upstream_name if payload.get(upstream_name) is None else DROPPED
    return "emulated" if name in profile.emulate else DROPPED


def _adapt_messages(profile: Profile, messages: Any, adapted: dict[str, str]) -> Any:
    dropped = {name.removeprefix(MESSAGES) for name in profile.drop if name.startswith(MESSAGES)}
    if not (dropped or profile.roles or profile.message_keys):
        return messages
    modern = _with_tool_calls(messages, adapted) if profile.message_keys else messages
    changed = [_adapt_message(profile, dropped, message, adapted) for message in modern]
    return messages if all(map(is_, changed, messages)) else changed


def _adapt_message(profile: Profile, dropped: set[str], message: Any, adapted: dict[str, str]) -> Any:
    role = message.get("role")
    if profile.message_keys:
        dropped = dropped | (message.keys() - profile.message_keys - {"role"})
    if role not in profile.roles and dropped.isdisjoint(message):
        return message
    kept = {name: value for name, value in message.items() if name not in dropped}
    for name in dropped & message.keys():
        if message[name] is not None:
            adapted[f"{MESSAGES}{name if _SHOWN_NAME.fullmatch(name) else '?'}"] = DROPPED
    if role in profile.roles:
        kept["role"] = profile.roles[role]
        adapted[f"{MESSAGES}role"] = kept["role"]
    return kept


def _with_tool_calls(messages: Any, adapted: dict[str, str]) -> Any:
    """Return the messages with a deprecated `function_call` as a tool call, and its result as that of a tool."""
    changed: list[Any] = []
    for position, message in enumerate(messages):
        if message.get("role") == "function":
            adapted[f"{MESSAGES}role"] = "tool"
            message = {"role": "tool", "content": message.get("content"), "tool_call_id": _call_id(position - 1)}
        elif isinstance(message.get("function_call"), Mapping):
            adapted[f"{MESSAGES}function_call"] = "tool_calls"
            call = {"id": _call_id(position), "type": "function", "function": message["function_call"]}
            message = {**message, "tool_calls": [call], "function_call": None}
        changed.append(message)
    return changed


def _call_id(position: int) -> str:
    """Return the id of the call that the message at a position makes. Its result is the next message."""
    return f"call_{position}"


def record_adaptations(adapted: Mapping[str, str], headers: dict[str, str]) -> None:
    """Add the adaptations to the headers of the response."""
    if adapted:
        headers[ADAPTED_HEADER] = to_header({**from_header(headers.get(ADAPTED_HEADER, "")), **adapted})


def from_header(value: str) -> dict[str, str]:
    """Parse a value of `ADAPTED_HEADER` into adaptations."""
    return dict(pair.split("=", 1) for pair in value.split(", ") if pair)


def to_header(adapted: Mapping[str, str]) -> str:
    """Format adaptations as a value of `ADAPTED_HEADER`."""
    return ", ".join(f"{name}={adaptation}" for name, adaptation in adapted.items())
