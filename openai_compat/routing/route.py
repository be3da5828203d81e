"""The ordered plan of a route: who is asked first, and who next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openai_compat.backends.base import Backend
from openai_compat.core.settings import RoutePolicy

from .circuit_breaker import CircuitBreaker
from .load_balancer import LoadBalancer


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, and the model that it is asked for: the name the answer goes by."""

    model: str
    backend: Backend

    @property
    def window(self) -> int | None:
        """Tokens that the model takes, where that is configured."""
        return self.backend.entry.context_window


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """`targets` share the calls as `balancer` says; `fallbacks` follow in their order."""

    policy: RoutePolicy
    targets: Mapping[str, Target]
    fallbacks: Sequence[Target]
    balancer: LoadBalancer
    health: CircuitBreaker

    def order(self) -> list[Target]:
        """Everyone that one call may ask, in turn."""
        return [*(self.targets[name] for name in self.balancer.order()), *self.fallbacks]

    def is_fallback(self, target: Target) -> bool:
        return target.model not in self.targets
