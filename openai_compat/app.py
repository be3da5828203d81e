"""Wiring, and nothing else: settings -> backends -> routing -> services -> blueprints -> error handlers."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin
from flask_cors import CORS
from werkzeug.routing import MapAdapter

from openai_compat.backends.base import Backend, NoOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.huggingface.engine_client import EngineClient
from openai_compat.backends.huggingface.engine_config import KIND
from openai_compat.backends.resources import BackendResources
from openai_compat.config.environment import load_settings
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.logging import configure_logging
from openai_compat.core.settings import ECHO_MODEL, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.routing.router import ModelRouter, build_backend
from openai_compat.server.checks import warn_without_gevent
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.model_catalog import ModelCatalog
from openai_compat.state.base import StateStore
from openai_compat.tools.doctor.backend import DOCTOR_ENTRY, DoctorBackend
from openai_compat.web.auth import require_api_key
from openai_compat.web.client_monitor import DisconnectMonitor
from openai_compat.web.errors import register_errors
from openai_compat.web.request_context import current_request, install_request_context, limit_concurrency
from openai_compat.web.routes import inference as chat
from openai_compat.web.routes import models
from openai_compat.web.routes.ask.blueprint import ask_blueprint
from openai_compat.web.routes.docs import docs_blueprint
from openai_compat.web.routes.health import health_blueprint
from openai_compat.web.routes.home import home_blueprint
from openai_compat.web.routes.passthrough import passthrough_blueprint

from .state import open_store

log = logging.getLogger(__name__)

EXPOSED_HEADERS = [
    "x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "x-truncated-inputs",
    "x-openai-compat-adapted", "x-openai-compat-upstream", "x-openai-compat-attempts", "x-openai-compat-fallback",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
]  # fmt: skip
"""What a page on another origin may read of an answer."""


class NoSessions(SessionInterface):
    """No cookie is read or set."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return NullSession()

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        raise NotImplementedError


class Application(Flask):
    """Flask, less what this server has no use for and would pay for with every request."""

    session_interface = NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """No host is told from another here: Flask looks at it closely, twice a request."""
        if request is None:
            return None
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name=environ.get("HTTP_HOST") or environ["SERVER_NAME"],
            script_name=environ["SCRIPT_NAME"] + "/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=request.path,
            default_method=environ["REQUEST_METHOD"],
            query_args=environ.get("QUERY_STRING", ""),
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Every view and hook here is a plain function; Flask looks each of them up, six times a request."""
        return func


@dataclass(frozen=True, slots=True, weakref_slot=True)
class State:
    """What an application holds, at `app.extensions["openai_compat"]`: nothing of it is global.

    It is closed once: by `close`, when the application is gone, or when the process ends.
    """

    settings: Settings
    routing: ModelRouter
    catalog: ModelCatalog
    backends: tuple[Backend, ...]
    forwarder: UpstreamClient
    clients: DisconnectMonitor
    store: StateStore
    engine: EngineClient | None
    _end: Callable[[], object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        end = weakref.finalize(self, _close_all, *self.backends, self.forwarder, self.store, self.engine)
        object.__setattr__(self, "_end", end)  # frozen

    def close(self) -> None:
        """Ends the backends' work, and last the connections that they share."""
        self._end()


def _close_all(*parts: Backend | UpstreamClient | StateStore | EngineClient | None) -> None:
    for part in parts:
        try:
            if part is not None:
                part.close()
        except Exception:  # the others are to be closed all the same
            log.exception("%s could not be closed", type(part).__name__)


def create_app(settings: Settings | None = None) -> Flask:
    """See `openai_compat.create_app`."""
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format)
    warn_without_gevent()
    state = _build_state(settings)
    app = Application("openai_compat", static_folder=None)
    app.url_map.merge_slashes = False  # a redirect would be a page of HTML, and no client of an API follows it
    app.extensions["openai_compat"] = state
    install_request_context(app, settings, state.clients)
    _register_blueprints(app, state)
    register_errors(app, settings)
    _allow_origins(app, settings)
    return app


def _allow_origins(app: Flask, settings: Settings) -> None:
    """flask-cors, asked only where a browser says that a page of some origin wants to know."""
    CORS(
        app, origins=list(settings.cors_allow_origins), expose_headers=EXPOSED_HEADERS, max_age=600, send_wildcard=True
    )
    add_headers = app.after_request_funcs[None].pop()

    @app.after_request
    def allow_origin(response: Response) -> Response:
        environ = current_request().environ
        if "HTTP_ORIGIN" in environ:
            add_headers(response)
        if environ["REQUEST_METHOD"] == "GET":  # so that no cache gives one page what was meant for another
            response.vary.add("Origin")
        return response


def _build_state(settings: Settings) -> State:
    forwarder = UpstreamClient(settings)
    entries = [entry for entry in (*settings.entries.values(), *settings.hidden_entries.values()) if not entry.is_alias]
    engine = EngineClient(settings) if any(entry.kind == KIND for entry in entries) else None
    resources = BackendResources(settings, forwarder, engine)
    backends = {entry.name: build_backend(entry, resources) for entry in entries}
    upstream = build_backend(settings.default_upstream, resources) if settings.default_upstream else None
    store = open_store(settings.shared_state_url)
    routing = ModelRouter(settings, backends, upstream, store)
    if settings.diagnostics_enabled:
        routing.add_internal(DoctorBackend(DOCTOR_ENTRY, NoOptions(), resources))
    owned = (*backends.values(), *([upstream] if upstream else []))
    clients = DisconnectMonitor(half_close_is_disconnect=settings.half_close_is_disconnect)
    if engine is not None:
        engine.preload()
    return State(settings, routing, ModelCatalog(settings, routing), owned, forwarder, clients, store, engine)


def _register_blueprints(app: Flask, state: State) -> None:
    settings, routing = state.settings, state.routing
    tokens = TokenCounter(Path(settings.tiktoken_cache_dir) if settings.tiktoken_cache_dir else None)
    chats = ChatService(tokens)
    guarded: list[tuple[Blueprint, tuple[str, ...]]] = [
        (chat.chat_blueprint(routing, chats), chat.URL_PREFIXES),
        (chat.completions_blueprint(routing, CompletionService(tokens)), chat.URL_PREFIXES),
        (chat.embeddings_blueprint(routing, EmbeddingService(tokens)), chat.URL_PREFIXES),
        (models.models_blueprint(routing, state.catalog), models.ROOTS),
        (ask_blueprint(routing, chats, settings), ("",)),
    ]
    if routing.forwarding_upstream is not None:
        guarded.append((passthrough_blueprint(routing.forwarding_upstream, settings), ("/v1",)))
    check = require_api_key(settings.api_keys)
    gate = ConcurrencyLimiter(
        settings.max_concurrent_requests, settings.max_queued_requests, settings.request_queue_timeout
    )
    for blueprint, roots in guarded:
        blueprint.before_request(check)
        if settings.max_concurrent_requests and blueprint.name != "models":  # a list that front ends ask for often
            blueprint.before_request(limit_concurrency(gate))
        for root in roots:
            app.register_blueprint(blueprint, url_prefix=root or None, name=f"{blueprint.name}{root}".replace(".", "_"))
    app.register_blueprint(health_blueprint())
    app.register_blueprint(docs_blueprint(settings.default_model or ECHO_MODEL))
    if settings.home_page:
        app.register_blueprint(home_blueprint())
