"""Routing of model names to backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from openai_compat.backends.base import Backend, SupportsForwarding, capabilities_of, missing_capability
from openai_compat.backends.registry import load_backend_class
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import InvalidRequestError, ModelNotFoundError
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.state.base import StateStore
from openai_compat.state.memory import MemoryStore

from .circuit_breaker import CircuitBreaker
from .load_balancer import LeastLatency, LoadBalancer, WeightedRandom
from .model_aliases import exact_aliases, patterns_of
from .route import RoutePlan, Target


@dataclass(frozen=True, slots=True)
class Route:
    """The backend that answers for `model`, the public name that clients use.

    With a `plan`, `backend` is only the first of several targets, or may be retried. `alias` is the model config of an
    alias, which has no backend of its own. `target` is the model that is asked in the place of one of `model_aliases`.
    """

    model: str
    backend: Backend
    plan: RoutePlan | None = None
    alias: ModelConfig | None = None
    target: Target | None = None

    @property
    def entry(self) -> ModelConfig:
        """Model config of the public name."""
        return self.alias or self.backend.entry


@dataclass(frozen=True, slots=True)
class ForwardingTarget:
    """The upstream of a model, its name there, and the kind of its backend."""

    backend: SupportsForwarding
    model: str
    kind: str


class ModelRouter:
    """Map from model names to routes. Names without a model config go to the default upstream, if there is one.

    `store` shares the state of the circuit breakers between workers.
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
        builder = _RouteBuilder(settings, backends, upstream, store or MemoryStore())
        self.breaker = builder.breaker
        self._routes = {name: builder.build(entry) for name, entry in settings.entries.items()}
        self._internal: dict[str, Route] = {}
        aliases = exact_aliases(settings.model_aliases)
        self._routes |= {name: self._alias_route(name, model) for name, model in aliases.items()}
        self._patterns = patterns_of(settings.model_aliases)

    def route(self, model: str | None) -> Route:
        """Return the route of `model`, or of the default model if the request names none.

        Raises:
            ModelNotFoundError: the name is unknown and no upstream may serve it.
            InvalidRequestError: the request names no model and there is no default model.
        """
        name = model or self.default_model
        if name is None:
            raise InvalidRequestError(
                "you must provide a model parameter", param="model", code="missing_required_parameter"
            )
        route = self._routes.get(name)
        if route is not None:
            return route
        if name in self._internal:
            return self._internal[name]
        for alias in self._patterns:
            if alias.matches(name):
                return self._alias_route(name, alias.model)
        if self.upstream is None or not self.allows(name):
            raise ModelNotFoundError(name, self._closest_match(name))
        return Route(name, self.upstream)

    def _alias_route(self, name: str, model: str) -> Route:
        """Return the route of an alias of `model`, which is a model config or one of the default upstream's models."""
        route = self._routes.get(model)
        if route is None:
            if self.upstream is None:
                raise LookupError(f"the alias '{name}' names '{model}', which is not configured")
            route = Route(model, self.upstream)
        return replace(route, model=name, target=Target(model, route.backend))

    def nameless_route(self) -> Route | None:
        """Return the route of calls whose model only the default upstream knows, or None if it may not get them."""
        if self.upstream is None or self.default_model is not None or self._allowed:
            return None
        return Route("", self.upstream)

    def forwarding_target(self, model: str) -> ForwardingTarget:
        """Return the target of `model` for calls of other endpoints, which cannot be translated.

        It is the first target or fallback that speaks OpenAI's protocol.

        Raises:
            ModelNotFoundError: as from `route`.
            CapabilityError: no target speaks OpenAI's protocol.
        """
        route = self.route(model)
        targets = route.plan.order() if route.plan is not None else [route.target or Target(route.model, route.backend)]
        for target in targets:
            backend = target.backend
            if isinstance(backend, SupportsForwarding):
                return ForwardingTarget(backend, backend.upstream_model or target.model, backend.entry.kind)
        raise missing_capability(model, "forwarding", capabilities_of(route.backend))

    @property
    def forwards(self) -> bool:
        """True if any model or the default upstream speaks OpenAI's protocol."""
        plans = (route.plan for route in self._routes.values())
        targets = (target.backend for plan in plans if plan for target in (*plan.targets.values(), *plan.fallbacks))
        backends = (self.upstream, *(route.backend for route in self._routes.values()), *targets)
        return any(isinstance(backend, SupportsForwarding) for backend in backends)

    @property
    def has_models(self) -> bool:
        """True if names are configured or restricted, so that not every one goes to the default upstream."""
        return bool(self._routes or self._patterns or self._allowed)

    def add_internal(self, backend: Backend) -> None:
        """Add a backend under its own name, for names without a model config. It is not listed."""
        self._internal[backend.name] = Route(backend.name, backend)

    def _closest_match(self, name: str) -> str | None:
        return next(iter(get_close_matches(name[:200], self._routes, n=1)), None)

    def allows(self, model: str) -> bool:
        """Return True if `MODEL_ALLOW_LIST` is empty or contains `model`."""
        return not self._allowed or model in self._allowed

    def known_models(self) -> frozenset[str]:
        """Return the names of all models and targets that the configuration names."""
        names = {*self._routes, *self._internal}
        for route in self._routes.values():
            if route.plan is not None:
                names.update(route.plan.targets, (target.model for target in route.plan.fallbacks))
            if route.target is not None:
                names.add(route.target.model)
        return frozenset(names)

    def routes(self) -> Iterable[Route]:
        """Return the routes of all model configs, and of the aliases that are no patterns."""
        return self._routes.values()

    @property
    def forwarding_upstream(self) -> SupportsForwarding | None:
        """The default upstream, if it takes every call of the API (passthrough)."""
        return self.upstream if isinstance(self.upstream, SupportsForwarding) else None


class _RouteBuilder:
    """Builder of the routes of all model configs, which share one `CircuitBreaker`."""

    def __init__(
        self, settings: Settings, backends: Mapping[str, Backend], upstream: Backend | None, store: StateStore
    ) -> None:
        self._backends = backends
        self._upstream = upstream
        policies = {name: entry.routing for name, entry in settings.entries.items() if entry.routing is not None}
        self.breaker = CircuitBreaker(store, _target_names(policies))

    def build(self, entry: ModelConfig) -> Route:
        if entry.routing is None:
            return Route(entry.name, self._backends[entry.name])
        plan = self._plan(entry, entry.routing)
        backend = next(iter(plan.targets.values())).backend
        return Route(entry.name, backend, plan, entry if entry.is_alias else None)

    def _plan(self, entry: ModelConfig, policy: RoutePolicy) -> RoutePlan:
        weights = policy.targets or {entry.name: 1.0}
        has_alternatives = len(weights) + len(policy.fallbacks) > 1
        targets = {name: self._target(name, has_alternatives=has_alternatives) for name in weights}
        return RoutePlan(
            policy,
            targets,
            [self._target(name, has_alternatives=has_alternatives) for name in policy.fallbacks],
            self._balancer(policy, weights),
            self.breaker,
        )

    def _target(self, name: str, *, has_alternatives: bool) -> Target:
        backend = self._backends.get(name) or self._upstream
        if backend is None:
            raise LookupError(f"a route targets '{name}', which is not configured")
        entry = backend.entry
        is_replaced = has_alternatives and entry.routed_timeouts != entry.timeouts
        return Target(name, backend, entry.routed_timeouts if is_replaced else None)

    def _balancer(self, policy: RoutePolicy, weights: Mapping[str, float]) -> LoadBalancer:
        if policy.strategy == "weighted":
            return WeightedRandom(weights)
        balancer = LeastLatency(list(weights))
        self.breaker.share_latencies(balancer.latencies)
        return balancer


def _target_names(policies: Mapping[str, RoutePolicy]) -> list[str]:
    """Return the names of all targets and fallbacks, without duplicates."""
    names = (name for own, policy in policies.items() for name in (*(policy.targets or [own]), *policy.fallbacks))
    return list(dict.fromkeys(names))


def build_backend(entry: ModelConfig, resources: BackendResources) -> Backend:
    """Return the backend of `entry`. Its options were validated with the configuration."""
    backend_class = load_backend_class(entry.kind)
    return backend_class(entry, backend_class.Options(**entry.options), resources)
