"""Routing policies of the models file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from openai_compat.core.settings import ModelConfig, RoutePolicy

from .model_schema import ROUTE_KEYS


def to_policy(values: Mapping[str, Any]) -> RoutePolicy | None:
    """Return the policy of a model, or None if it has no routing keys."""
    route = {key: values[key] for key in ROUTE_KEYS if key in values}
    cooldown = route.pop("cooldown", None)
    if route or cooldown is not None:
        return RoutePolicy(**route, **(cooldown or {}))
    # A model that only limits its first token gets no second try.
    return RoutePolicy(retries=0) if "first_token" in values.get("timeout", {}) else None


def check_routes(entries: Mapping[str, ModelConfig], *, has_upstream: bool) -> Iterator[str]:
    """Yield a sentence for each target and fallback that no call can go to."""
    for entry in entries.values():
        if entry.routing is None:
            continue
        for key, names in (("targets", entry.routing.targets), ("fallbacks", entry.routing.fallbacks)):
            for name in names:
                if name == entry.name:
                    yield f"model '{entry.name}': {key} names '{name}', which is itself"
                elif name not in entries and not has_upstream:
                    yield f"model '{entry.name}': {key} names '{name}', which is not configured"
                elif name in entries and entries[name].is_alias:
                    yield f"model '{entry.name}': {key} names '{name}', which has targets of its own"
        both = sorted(set(entry.routing.targets) & set(entry.routing.fallbacks))
        if both:
            yield f"model '{entry.name}': {', '.join(both)} stands in targets and in fallbacks"


def names_of(entries: Iterable[ModelConfig]) -> set[str]:
    """Return the names of all models that the routes of `entries` mention."""
    policies = [entry.routing for entry in entries if entry.routing is not None]
    return {name for policy in policies for name in (*policy.targets, *policy.fallbacks)}
