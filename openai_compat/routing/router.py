"""Which back end answers for a model name: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from openai_compat.backends.base import Backend, SupportsForwarding
from openai_compat.backends.registry import load_backend_class
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import InvalidRequestError, ModelNotFoundError
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.state.base import StateStore
from openai_compat.state.memory import MemoryStore

from .circuit_breaker import CircuitBreaker
from .load_balancer import LeastLatency, LoadBalancer, WeightedRandom
from .route import RoutePlan, Target


@dataclass(frozen=True, slots=True)
class Route:
    """The backend that answers for `model`, the public name that the client gets to see.

    With a `plan` it is only the first of several, or gets more than one try. An `alias` has an entry of its own.
    """

    model: str
    backend: Backend
    plan: RoutePlan | None = None
    alias: ModelConfig | None = None

    @property
    def entry(self) -> ModelConfig:
        """What is configured under the name."""
        return self.alias or self.backend.entry


class ModelRouter:
    """Model name -> route. Names that no entry has go to the default upstream, where there is one.

    `store` is where workers tell each other which upstreams are out of order.
    """

    def __init__(
        self,
        settings: Settings,
        backends: Mapping[str, Backend],
        upstream: Backend | None,
        store: StateStore | None = None,
    ) -> None:
        self.default_model = settings.default_model
        self.upstream = upstream
        self._allowed = frozenset(settings.model_allow_list)
        planner = _RouteBuilder(settings, backends, upstream, store or MemoryStore())
        self._routes = {name: planner.route(entry) for name, entry in settings.entries.items()}
        self._hidden: dict[str, Route] = {}

    def route(self, model: str | None) -> Route:
        """The route of `model`, or of the default model where the request names none.

        Raises:
            ModelNotFoundError: nothing here answers for that name.
            PayloadError: no name, and no default.
        """
        name = model or self.default_model
        if name is None:
            raise InvalidRequestError(
                "you must provide a model parameter", param="model", code="missing_required_parameter"
            )
        found = self._routes.get(name)
        if found is not None:
            return found
        if name in self._hidden:
            return self._hidden[name]
        if self.upstream is None or not self.allows(name):
            raise ModelNotFoundError(name, self._most_similar(name))
        return Route(name, self.upstream)

    def add_internal(self, backend: Backend) -> None:
        """One more that answers for its own name, where no entry has it, and that no list shows."""
        self._hidden[backend.name] = Route(backend.name, backend)

    def _most_similar(self, name: str) -> str | None:
        return next(iter(get_close_matches(name[:200], self._routes, n=1)), None)

    def allows(self, model: str) -> bool:
        return not self._allowed or model in self._allowed

    def routes(self) -> Iterable[Route]:
        """Those that are configured by name."""
        return self._routes.values()

    @property
    def forwarding_upstream(self) -> SupportsForwarding | None:
        """The default upstream, as the peer that takes every call of the API."""
        return self.upstream if isinstance(self.upstream, SupportsForwarding) else None


class _RouteBuilder:
    """Makes the routes of all entries, with one `CircuitBreaker` for all of them."""

    def __init__(
        self, settings: Settings, backends: Mapping[str, Backend], upstream: Backend | None, store: StateStore
    ) -> None:
        self._backends = backends
        self._upstream = upstream
        policies = {name: entry.routing for name, entry in settings.entries.items() if entry.routing is not None}
        self._health = CircuitBreaker(store, _names_in(policies))

    def route(self, entry: ModelConfig) -> Route:
        if entry.routing is None:
            return Route(entry.name, self._backends[entry.name])
        plan = self._plan(entry, entry.routing)
        backend = next(iter(plan.targets.values())).backend
        return Route(entry.name, backend, plan, entry if entry.is_alias else None)

    def _plan(self, entry: ModelConfig, policy: RoutePolicy) -> RoutePlan:
        weights = policy.targets or {entry.name: 1.0}
        targets = {name: self._target(name) for name in weights}
        return RoutePlan(
            policy,
            targets,
            [self._target(name) for name in policy.fallbacks],
            self._balancer(policy, weights),
            self._health,
        )

    def _target(self, name: str) -> Target:
        backend = self._backends.get(name) or self._upstream
        if backend is None:
            raise LookupError(f"a route leads to '{name}', which is not configured")
        return Target(name, backend)

    def _balancer(self, policy: RoutePolicy, weights: Mapping[str, float]) -> LoadBalancer:
        if policy.strategy == "weight":
            return WeightedRandom(weights)
        balancer = LeastLatency(list(weights))
        self._health.share_latencies(balancer.latencies)
        return balancer


def _names_in(policies: Mapping[str, RoutePolicy]) -> list[str]:
    """Every model that some plan leads to, once."""
    names = (name for own, policy in policies.items() for name in (*(policy.targets or [own]), *policy.fallbacks))
    return list(dict.fromkeys(names))


def build_backend(entry: ModelConfig, resources: BackendResources) -> Backend:
    """The entry's backend; `Options` were checked with the configuration."""
    backend_class = load_backend_class(entry.kind)
    return backend_class(entry, backend_class.Options(**entry.options), resources)
