"""Which back end answers for a model name: decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ..backends.base import Backend, BackendResources, SupportsForwarding
from ..backends.registry import load_backend_class
from ..errors import ModelNotFoundError, PayloadError
from ..settings import ModelEntry, Settings


@dataclass(frozen=True, slots=True)
class Route:
    """The backend that answers for `model`, the public name that the client gets to see."""

    model: str
    backend: Backend


class RoutingTable:
    """Model name -> route. Names that no entry has go to the default upstream, where there is one."""

    def __init__(self, settings: Settings, backends: Mapping[str, Backend], upstream: Backend | None) -> None:
        self.default_model = settings.default_model
        self.upstream = upstream
        self._allowed = frozenset(settings.model_allow_list)
        self._routes = {name: Route(name, backend) for name, backend in backends.items()}
        self._hidden: dict[str, Route] = {}

    def route(self, model: str | None) -> Route:
        """The route of `model`, or of the default model where the request names none.

        Raises:
            ModelNotFoundError: nothing here answers for that name.
            PayloadError: no name, and no default.
        """
        name = model or self.default_model
        if name is None:
            raise PayloadError("you must provide a model parameter", param="model", code="missing_required_parameter")
        found = self._routes.get(name)
        if found is not None:
            return found
        if name in self._hidden:
            return self._hidden[name]
        if self.upstream is None or not self.allows(name):
            raise ModelNotFoundError(name, self._most_similar(name))
        return Route(name, self.upstream)

    def add_hidden(self, backend: Backend) -> None:
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


def build_backend(entry: ModelEntry, resources: BackendResources) -> Backend:
    """The entry's backend; `Options` were checked with the configuration."""
    backend_class = load_backend_class(entry.kind)
    return backend_class(entry, backend_class.Options(**entry.options), resources)
