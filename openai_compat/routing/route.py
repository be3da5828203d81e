"""Route plan of a model, with its targets, its fallback chain and its retry policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openai_compat.backends.base import Backend
from openai_compat.core.settings import RoutePolicy
from openai_compat.core.timeouts import Timeouts

from .circuit_breaker import CircuitBreaker
from .load_balancer import LoadBalancer


@dataclass(frozen=True, slots=True)
class Target:
    """A backend and the model name to request from it.

    `timeouts` replace those of the model config for calls of this route.
    """

    model: str
    backend: Backend
    timeouts: Timeouts | None = None

    @property
    def first_token_timeout(self) -> float:
        """Time-to-first-token timeout of a stream in seconds, 0 for none."""
        return (self.timeouts or self.backend.entry.timeouts).first_token

    @property
    def window(self) -> int | None:
        """Context window of the model in tokens, if it is configured."""
        return self.backend.entry.context_window


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Targets and fallbacks of one model.

    `balancer` distributes the calls over `targets`. `fallbacks` are tried after them, in their order.
    """

    policy: RoutePolicy
    targets: Mapping[str, Target]
    fallbacks: Sequence[Target]
    balancer: LoadBalancer
    breaker: CircuitBreaker

    def order(self) -> list[Target]:
        """Return all targets and fallbacks in the order in which one call tries them."""
        return [*(self.targets[name] for name in self.balancer.order()), *self.fallbacks]

    def is_fallback(self, target: Target) -> bool:
        """Return True if `target` is not one of the plan's own targets."""
        return target.model not in self.targets
