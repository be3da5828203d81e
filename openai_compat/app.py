"""Application factory, which wires settings, backends, routing, services, blueprints and error handlers."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin
from flask_cors import CORS
from werkzeug.routing import MapAdapter

from openai_compat.accounts.price_book import PriceBook
from openai_compat.accounts.service import Accounts, open_accounts
from openai_compat.backends.base import Backend, NoOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.local.engine_client import EngineClient
from openai_compat.backends.local.engine_config import LOCAL_KINDS
from openai_compat.backends.resources import BackendResources
from openai_compat.config.environment import load_settings
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.logging import configure_logging
from openai_compat.core.observation import Activity
from openai_compat.core.settings import ECHO_MODEL, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.routing.router import ModelRouter, build_backend
from openai_compat.server.checks import warn_without_gevent
from openai_compat.services.call_log.recorder import CallRecorder
from openai_compat.services.call_log.reports import CallReports
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.conversations import Conversations
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.model_catalog import ModelCatalog
from openai_compat.services.responses.background import BackgroundRunner
from openai_compat.services.responses.endpoint import ResponsesService
from openai_compat.services.responses.sealing import ReasoningSealer
from openai_compat.services.responses.store import ResponseStore
from openai_compat.services.stored_completions import StoredCompletions
from openai_compat.services.stored_responses import StoredResponses
from openai_compat.services.token_decoder import TokenDecoder
from openai_compat.state.base import StateStore
from openai_compat.storage import Storage, open_storage
from openai_compat.telemetry.metrics import Metrics
from openai_compat.telemetry.sampler import Sources
from openai_compat.telemetry.tracing import Tracer, open_tracer
from openai_compat.tools.doctor.backend import DOCTOR_ENTRY, DoctorBackend
from openai_compat.web import administration, stored_objects
from openai_compat.web.admin_sessions import AdminSessions
from openai_compat.web.auth import require_api_key, require_endpoint
from openai_compat.web.client_monitor import DisconnectMonitor
from openai_compat.web.cross_site import reject_foreign_pages
from openai_compat.web.error_handlers import register_errors_of_both_forms
from openai_compat.web.request_context import current_request, install_request_context, limit_concurrency
from openai_compat.web.routes import (
    conversations,
    inference,
    messages,
    models,
    passthrough,
    responses,
    stored_completions,
    stored_responses,
)
from openai_compat.web.routes.admin import api as admin_api
from openai_compat.web.routes.admin.page import page_blueprint, refusing_blueprint
from openai_compat.web.routes.administration import administration_blueprint
from openai_compat.web.routes.ask.blueprint import ask_blueprint
from openai_compat.web.routes.docs import docs_blueprint
from openai_compat.web.routes.health import health_blueprint
from openai_compat.web.routes.home import home_blueprint
from openai_compat.web.routes.metrics import metrics_blueprint, separate_metrics

from .state import open_store

log = logging.getLogger(__name__)

EXPOSED_HEADERS = [
    "x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms",
    "x-truncated-inputs", "x-openai-compat-adapted", "x-openai-compat-upstream", "x-openai-compat-attempts",
    "x-openai-compat-fallback",
    *(f"x-ratelimit-{value}-{unit}" for value in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
    *(
        f"anthropic-ratelimit-{unit}-{value}"
        for unit in ("requests", "tokens") for value in ("limit", "remaining", "reset")
    ),
]  # fmt: skip
"""Response headers that pages on other origins may read."""


class NoSessions(SessionInterface):
    """Session interface that neither reads nor sets cookies."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return NullSession()

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        raise NotImplementedError


class Application(Flask):
    """Flask without features that this server does not use and that cost time in every request."""

    session_interface = NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return a URL adapter that ignores the host, which Flask would parse twice per request."""
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
        """Return `func`, as all views and hooks are synchronous. Flask would check six of them per request."""
        return func


POLLED: Final = frozenset({"models", "stored_responses"})
"""Blueprints without a limit on concurrency, as clients poll the model list and the responses that fill all slots."""


ENDPOINT_GROUPS: Final = {
    "models": "models", "stored_completions": "chat", "stored_responses": "responses", "conversations": "responses"
}  # fmt: skip
"""Blueprint without calls to a model -> the group of endpoints that a key must be allowed to use."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class State:
    """Components of one application, at `app.extensions["openai_compat"]`.

    They are closed once, by `close`, by the application's garbage collection, or at the process's exit.
    """

    settings: Settings
    router: ModelRouter
    catalog: ModelCatalog
    backends: tuple[Backend, ...]
    upstream_client: UpstreamClient
    disconnect_monitor: DisconnectMonitor
    store: StateStore
    storage: Storage
    responses: ResponseStore
    background: BackgroundRunner
    accounts: Accounts | None
    recorder: CallRecorder | None
    engine_client: EngineClient | None
    limiter: ConcurrencyLimiter
    metrics: Metrics
    tracer: Tracer | None
    _finalizer: Callable[[], object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        components = (
            *self.backends, self.upstream_client, self.store, self.accounts, self.recorder, self.storage,
            self.engine_client, self.metrics, self.tracer,
        )  # fmt: skip
        finalizer = weakref.finalize(self, _close_all, *components)
        object.__setattr__(self, "_finalizer", finalizer)  # frozen

    def close(self) -> None:
        """Close the backends, and then the connections that they share."""
        self._finalizer()


Component = (
    Backend | UpstreamClient | StateStore | Storage | Accounts | CallRecorder | EngineClient | Metrics | Tracer | None
)


def _close_all(*components: Component) -> None:
    for component in components:
        try:
            if component is not None:
                component.close()
        except Exception:  # the others must be closed as well
            log.exception("%s could not be closed", type(component).__name__)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the WSGI application, as described at `openai_compat.create_app`."""
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format)
    warn_without_gevent()
    state = _build_state(settings)
    app = Application("openai_compat", static_folder=None)
    app.url_map.merge_slashes = app.url_map.strict_slashes = False  # clients of an API do not follow its redirects
    app.extensions["openai_compat"] = state
    check = reject_foreign_pages(settings.allowed_hosts, settings.cors_allow_origins)
    if settings.metrics_port is not None:
        check = separate_metrics(settings.metrics_port, check)
    metrics, tracer = state.metrics, state.tracer
    install_request_context(
        app,
        settings,
        state.disconnect_monitor,
        check,
        [observer.observe for observer in (metrics, tracer, state.recorder) if observer is not None],
        None if tracer is None else tracer.start,
        metrics.activity,
    )
    _register_blueprints(app, state)
    state.metrics.add_endpoints(name.rpartition(".")[2] for name in app.view_functions)
    register_errors_of_both_forms(app, settings)
    _allow_origins(app, settings)
    if state.accounts is not None:
        state.accounts.apply_file()
    return app


def _allow_origins(app: Flask, settings: Settings) -> None:
    """Add CORS headers, and call flask-cors only for requests with an `Origin` header."""
    CORS(
        app,
        origins=[_to_pattern(origin) for origin in settings.cors_allow_origins],
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
        send_wildcard=True,
        allow_private_network=True,
    )
    add_headers = app.after_request_funcs[None].pop()

    @app.after_request
    def allow_origin(response: Response) -> Response:
        environ = current_request().environ
        if "HTTP_ORIGIN" in environ:
            add_headers(response)
        if environ["REQUEST_METHOD"] == "GET":  # a cached response is valid for one origin only
            response.vary.add("Origin")
        return response


def _to_pattern(origin: str) -> str | re.Pattern[str]:
    """Return an origin for flask-cors, which takes a text with an IPv6 address in brackets for a pattern."""
    return re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE) if "[" in origin else origin


def _build_state(settings: Settings) -> State:
    upstream_client = UpstreamClient(settings)
    entries = [entry for entry in (*settings.entries.values(), *settings.hidden_entries.values()) if not entry.is_alias]
    engine_client = EngineClient(settings) if any(entry.kind in LOCAL_KINDS for entry in entries) else None
    storage = open_storage(settings.database_url, settings.data_dir, settings.store_ttl, settings.store_max_bytes)
    accounts = open_accounts(settings, storage)
    resources = BackendResources(settings, upstream_client, engine_client)
    if accounts is not None:
        resources = replace(resources, has_accounts=accounts.is_active)
    backends = {entry.name: build_backend(entry, resources) for entry in entries}
    upstream = build_backend(settings.default_upstream, resources) if settings.default_upstream else None
    store = open_store(settings.shared_state_url)
    router = ModelRouter(settings, backends, upstream, store)
    if settings.diagnostics_enabled:
        router.add_internal(DoctorBackend(DOCTOR_ENTRY, NoOptions(), resources))
    owned = (*backends.values(), *([upstream] if upstream else []))
    monitor = DisconnectMonitor(half_close_is_disconnect=settings.half_close_is_disconnect)
    if engine_client is not None:
        engine_client.preload()
    catalog = ModelCatalog(settings, router)
    responses = ResponseStore(storage, Conversations(storage))
    background = BackgroundRunner(responses)
    limiter = ConcurrencyLimiter(
        settings.max_concurrent_requests, settings.max_queued_requests, settings.request_queue_timeout
    )
    recorder = _to_recorder(settings, storage, accounts)
    sources = Sources(Activity(), limiter, resources, router.breaker, store, storage, accounts, recorder)
    return State(
        settings,
        router,
        catalog,
        owned,
        upstream_client,
        monitor,
        store,
        storage,
        responses,
        background,
        accounts,
        recorder,
        engine_client,
        limiter,
        Metrics(settings.metrics_slot, router.known_models(), sources),
        open_tracer(settings),
    )


def _to_recorder(settings: Settings, storage: Storage, accounts: Accounts | None) -> CallRecorder | None:
    """Return the recorder of the log of calls, or None without the admin page."""
    if not settings.has_admin_page:
        return None
    prices = PriceBook() if accounts is None else accounts.prices
    return CallRecorder(storage, prices, settings.call_log_size, keeps_bodies=settings.call_log_bodies)


def _register_blueprints(app: Flask, state: State) -> None:
    settings, router = state.settings, state.router
    vocabularies = Path(settings.tiktoken_cache_dir) if settings.tiktoken_cache_dir else None
    tokens = TokenCounter(vocabularies)
    embeddings = EmbeddingService(tokens, TokenDecoder(vocabularies))
    chats = ChatService(tokens)
    service = ResponsesService(chats, state.responses, ReasoningSealer(settings.secret_key), state.background)
    stored = StoredCompletions(state.storage)
    passing = passthrough.Passthrough(router, settings)
    guarded: list[tuple[Blueprint, tuple[str, ...]]] = [
        (inference.chat_blueprint(router, chats, stored), inference.URL_PREFIXES),
        (inference.completions_blueprint(router, CompletionService(tokens)), inference.URL_PREFIXES),
        (inference.embeddings_blueprint(router, embeddings), inference.URL_PREFIXES),
        (responses.responses_blueprint(router, service), responses.URL_PREFIXES),
        (messages.messages_blueprint(router, chats, settings), messages.URL_PREFIXES),
        (messages.unknown_paths_blueprint(settings), messages.ROOTS),
        (models.models_blueprint(router, state.catalog), models.URL_PREFIXES),
        (ask_blueprint(router, chats, settings), ("",)),
        (stored_completions.completions_blueprint(stored, passing), stored_objects.URL_PREFIXES),
        (
            stored_responses.responses_blueprint(StoredResponses(state.storage, state.responses), passing),
            stored_objects.URL_PREFIXES,
        ),
        (conversations.conversations_blueprint(Conversations(state.storage), passing), stored_objects.URL_PREFIXES),
    ]
    if router.forwards and settings.passthrough:
        guarded.append((passthrough.passthrough_blueprint(router, settings), passthrough.URL_PREFIXES))
        guarded.append((passthrough.root_passthrough_blueprint(router, settings), ("",)))
    check = require_api_key(settings.api_keys, state.accounts, settings.admin_api_key)
    for blueprint, prefixes in guarded:
        blueprint.before_request(check)
        if blueprint.name in ENDPOINT_GROUPS:
            blueprint.before_request(require_endpoint(ENDPOINT_GROUPS[blueprint.name]))
        if settings.max_concurrent_requests and blueprint.name not in POLLED:
            blueprint.before_request(limit_concurrency(state.limiter))
        for prefix in prefixes:
            name = f"{blueprint.name}{prefix}".replace(".", "_")
            app.register_blueprint(blueprint, url_prefix=prefix or None, name=name)
    is_passed_through = bool(settings.passthrough) and router.forwarding_upstream is not None
    if state.accounts is not None and (settings.admin_api_key or not is_passed_through):
        check_admin = administration.require_admin_key(settings.admin_api_key)
        _register_administration(app, administration_blueprint(state.accounts, check_admin))
    if settings.admin_page:
        _register_admin_page(app, state, chats, embeddings)
    app.register_blueprint(health_blueprint())
    app.register_blueprint(metrics_blueprint(state.metrics.render, settings))
    app.register_blueprint(docs_blueprint(settings.default_model or ECHO_MODEL))
    if settings.home_page:
        app.register_blueprint(home_blueprint())


def _register_administration(app: Flask, blueprint: Blueprint) -> None:
    for prefix in administration.URL_PREFIXES:
        app.register_blueprint(blueprint, url_prefix=prefix or None, name=f"administration{prefix}".replace(".", "_"))


def _register_admin_page(app: Flask, state: State, chats: ChatService, embeddings: EmbeddingService) -> None:
    settings = state.settings
    if settings.admin_api_key is None or state.recorder is None:
        app.register_blueprint(refusing_blueprint())
        return
    sessions = AdminSessions(settings.admin_api_key, settings.secret_key or settings.server_id, state.store)
    features = {
        "has_accounts": state.accounts is not None,
        "call_log_size": settings.call_log_size,
        "keeps_bodies": settings.call_log_bodies,
    }
    app.register_blueprint(page_blueprint(sessions, features))
    sources = admin_api.Sources(
        state.router,
        CallReports(state.storage),
        state.accounts,
        admin_api.model_tester(state.router, chats, embeddings),
        state.metrics.worker_totals,
    )
    app.register_blueprint(admin_api.api_blueprint(sessions.check, sources))
    if state.accounts is not None:
        own = administration_blueprint(state.accounts, sessions.check, "admin_accounts")
        app.register_blueprint(own, url_prefix="/admin/api")
