"""State of the configured models and their targets, for the admin page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from openai_compat.backends.base import SupportsChat, SupportsEmbeddings, SupportsForwarding
from openai_compat.core.errors import ModelNotFoundError
from openai_compat.core.types import JSON
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.routing.router import ModelRouter, Route

EMBEDDING: Final = "embed"
"""Part of the names of embedding models."""
Figures = Mapping[tuple[str, str], JSON]
"""Figures of calls by model and target."""


def describe_models(router: ModelRouter, figures: Figures) -> list[JSON]:
    """Return every configured model with its targets, and other models that had calls."""
    routes = {route.model: route for route in router.routes()}
    others = sorted({model for model, _ in figures} - routes.keys() - {""})
    configured = [_describe(route, figures) for route in routes.values()]
    return [*configured, *({"model": model, "kind": "", **_no_route(model, figures)} for model in others)]


def find_target(router: ModelRouter, model: str, target: str) -> Route:
    """Return the route of a model, or of one of its targets alone, which no fallback replaces.

    Raises:
        ModelNotFoundError, InvalidRequestError
    """
    route = router.route(model)
    if not target:
        return route
    for candidate, _ in _targets(route):
        if candidate.model == target:
            return Route(candidate.model, candidate.backend)
    raise ModelNotFoundError(target)


def can_chat(route: Route) -> bool:
    """Return False if a test must be a call for embeddings.

    An upstream does not tell which of its models are for embeddings, so that the name does ("text-embedding-3-small").
    """
    backend = route.backend
    if isinstance(backend, SupportsForwarding | SupportsEmbeddings):
        is_named_so = EMBEDDING in (backend.entry.upstream_model or route.model).lower()
        return not is_named_so and isinstance(backend, SupportsForwarding | SupportsChat)
    return True


def _describe(route: Route, figures: Figures) -> JSON:
    targets = list(_targets(route))
    calls = {name: numbers["calls"] for (model, name), numbers in figures.items() if model == route.model}
    total = sum(calls.values())
    return {
        "model": route.model,
        "kind": route.entry.kind,
        "strategy": route.plan.policy.strategy if route.plan is not None else None,
        "targets": [
            {
                "model": target.model,
                "kind": target.backend.entry.kind,
                "role": role,
                "circuit": _circuit(route.plan, target),
                "share": calls.get(target.model, 0) / total if total else None,
                "figures": figures.get((route.model, target.model)),
            }
            for target, role in targets
        ],
    }


def _no_route(model: str, figures: Figures) -> JSON:
    """Return the targets of a model that the default upstream serves, or that is no longer configured."""
    own = {target: numbers for (name, target), numbers in figures.items() if name == model}
    return {
        "strategy": None,
        "targets": [
            {"model": target, "kind": "", "role": "", "circuit": None, "share": None, "figures": numbers}
            for target, numbers in own.items()
        ],
    }


def _targets(route: Route) -> Iterator[tuple[Target, str]]:
    """Yield each target and its role."""
    if route.plan is None:
        yield route.target or Target(route.model, route.backend), ""
        return
    weights = route.plan.policy.targets or {}
    for name, target in route.plan.targets.items():
        yield target, f"weight {weights[name]:g}" if len(weights) > 1 else ""
    for target in route.plan.fallbacks:
        yield target, "fallback"


def _circuit(plan: RoutePlan | None, target: Target) -> JSON | None:
    """Return the state of a target's circuit breaker, or None for a route without one."""
    if plan is None or not plan.policy.cooldown:
        return None
    state, until = plan.breaker.describe(target.model)
    return {"state": state, "until": until}
