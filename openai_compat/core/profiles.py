"""Capability profiles: what a peer that speaks OpenAI's protocol does not take as OpenAI takes it, as rows of data.

A row of the models file names one (`profile: databricks`) or has its own (`profile: {drop: [user]}`). What was adapted
is told to the client, by name; `strict` refuses it instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final

from .errors import UnsupportedParameterError

EMULATIONS: Final = frozenset({"stream_options"})
"""What can be done here in a peer's place: the usage at the end of a stream, by `stream_options.include_usage`."""
ADAPTED_HEADER: Final = "x-openai-compat-adapted"
DROPPED: Final = "dropped"
MESSAGES: Final = "messages."
"""What stands before the name of a message's key: `messages.name` is the `name` of every message."""

_NAME = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Profile:
    """What to do with the parameters of a request before the peer sees it.

    `drop` names those that are left out, `rename` has a peer's own names for some, `emulate` those that are left out
    and done here. `roles` renames the roles of messages. `rebuild` has chat answers read and written anew, for a peer
    whose answers differ from OpenAI's (content as a list of parts). `strict` refuses a request rather than adapting it.
    """

    drop: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    emulate: frozenset[str] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)
    rebuild: bool = False
    strict: bool = False

    def refuses(self, parameter: str) -> bool:
        """Whether the peer must not get this parameter."""
        return parameter in self.drop or parameter in self.emulate or parameter in self.rename


PROFILES: Final = MappingProxyType(
    {
        # Sources: Databricks' Foundation Model API reference (the fields that it lists), `400 json: unknown field
        # "stream_options"` (continuedev/continue#12936), content as a list of parts from its reasoning models.
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
            rebuild=True,
        ),
    }
)  # fmt: skip
"""Those that a row can name."""


def parse_profile(value: Any, known: Mapping[str, Profile] = PROFILES) -> Profile:
    """The profile that a row of the models file has: the name of one, or a mapping of `Profile`'s fields. `extends`
    names the one that such a mapping adds to.

    Raises:
        ValueError: with a sentence for the user.
    """
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"there is no profile '{value}'; known are {', '.join(sorted(known))}")
        return known[value]
    if not isinstance(value, dict):
        raise ValueError("must be the name of a profile, or a mapping")
    names = {option.name for option in fields(Profile)}
    unknown = sorted(str(key) for key in value.keys() - names - {"extends"})
    if unknown:
        raise ValueError(f"has unknown keys: {', '.join(unknown)} (known are extends, {', '.join(sorted(names))})")
    base = parse_profile(value["extends"], known) if "extends" in value else Profile()
    return replace(
        base,
        drop=base.drop | _parse_names(value, "drop"),
        emulate=base.emulate | _parse_emulations(value),
        rename={**base.rename, **_parse_renames(value, "rename")},
        roles={**base.roles, **_parse_renames(value, "roles")},
        rebuild=_parse_switch(value, "rebuild", base.rebuild),
        strict=_parse_switch(value, "strict", base.strict),
    )


def _parse_names(value: Mapping[str, Any], key: str) -> frozenset[str]:
    names = value.get(key, [])
    if not (isinstance(names, list) and all(map(_is_name, names))):
        raise ValueError(f"{key} must be a list of parameters")
    if not {"model", "messages", "prompt", "input", "stream"}.isdisjoint(names):
        raise ValueError(f"{key} cannot have what every request consists of (model, messages, prompt, input, stream)")
    return frozenset(names)


def _parse_emulations(value: Mapping[str, Any]) -> frozenset[str]:
    names = _parse_names(value, "emulate")
    if unknown := sorted(names - EMULATIONS):
        raise ValueError(f"emulate cannot have {', '.join(unknown)}; it knows {', '.join(sorted(EMULATIONS))}")
    return names


def _parse_renames(value: Mapping[str, Any], key: str) -> dict[str, str]:
    names = value.get(key, {})
    if not (isinstance(names, dict) and all(_is_name(name) for pair in names.items() for name in pair)):
        raise ValueError(f"{key} must be a mapping of names to names")
    return dict(names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _parse_switch(value: Mapping[str, Any], key: str, default: bool) -> bool:
    switch = value.get(key, default)
    if not isinstance(switch, bool):
        raise ValueError(f"{key} must be true or false")
    return switch


def apply_profile(profile: Profile, payload: Mapping[str, Any], model: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The payload as the peer takes it, and what was adapted: `{"user": "dropped", "max_completion_tokens":
    "max_tokens", "stream_options": "emulated"}`. The payload itself where nothing had to be.

    A parameter without a value asks for nothing, and is left out without a word.

    Raises:
        UnsupportedParameterError: the profile is strict, and something would have to be adapted.
    """
    changed: dict[str, Any] = {}
    adapted: dict[str, str] = {}
    for name, value in payload.items():
        if name == "messages":
            changed[name] = _adapt_messages(profile, value, adapted)
        elif not profile.refuses(name):
            if value is not None or name not in changed:  # another may have taken the name
                changed[name] = value
        elif value is not None:
            adapted[name] = _adapt(profile, name, payload)
            if name in profile.rename and adapted[name] != DROPPED:
                changed[profile.rename[name]] = value
    if profile.strict and adapted:
        raise UnsupportedParameterError(next(iter(adapted)), model)
    return (changed, adapted) if adapted or changed.keys() != payload.keys() else (payload, adapted)


def _adapt(profile: Profile, name: str, payload: Mapping[str, Any]) -> str:
    """What becomes of a parameter. One that the request has under the peer's own name too counts by that alone."""
    if name in profile.rename:
        own = profile.rename[name]
        return own if payload.get(own) is None else DROPPED
    return "emulated" if name in profile.emulate else DROPPED


def _adapt_messages(profile: Profile, messages: Any, adapted: dict[str, str]) -> Any:
    dropped = {name.removeprefix(MESSAGES) for name in profile.drop if name.startswith(MESSAGES)}
    if not (dropped or profile.roles):
        return messages
    return [_adapt_message(profile, dropped, message, adapted) for message in messages]


def _adapt_message(profile: Profile, dropped: set[str], message: Any, adapted: dict[str, str]) -> Any:
    role = message.get("role")
    if role not in profile.roles and dropped.isdisjoint(message):
        return message
    kept = {name: value for name, value in message.items() if name not in dropped}
    adapted |= {f"{MESSAGES}{name}": DROPPED for name in message if name in dropped}
    if role in profile.roles:
        kept["role"] = profile.roles[role]
        adapted[f"{MESSAGES}role"] = kept["role"]
    return kept


def record_adaptations(adapted: Mapping[str, str], headers: dict[str, str]) -> None:
    """Adds what was adapted to the headers of the answer."""
    if adapted:
        headers[ADAPTED_HEADER] = to_header({**from_header(headers.get(ADAPTED_HEADER, "")), **adapted})


def from_header(value: str) -> dict[str, str]:
    """What a value of `ADAPTED_HEADER` says was adapted."""
    return dict(pair.split("=", 1) for pair in value.split(", ") if pair)


def to_header(adapted: Mapping[str, str]) -> str:
    """What was adapted, as the value of `ADAPTED_HEADER`."""
    return ", ".join(f"{name}={what}" for name, what in adapted.items())
