"""The engine's application: the server's own doors and services in front of the models of a `ModelPool`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request
from werkzeug.wsgi import ClosingIterator

from openai_compat.app import Application
from openai_compat.backends.base import capabilities_of
from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.core.logging import configure_logging
from openai_compat.core.settings import Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.web.client_monitor import DisconnectMonitor
from openai_compat.web.errors import register_errors
from openai_compat.web.request_context import current_context, install_request_context
from openai_compat.web.responses import json_response
from openai_compat.web.routes import inference as chat

from .loader import ImportPathLoader
from .model_pool import ModelPool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SLOTS_KEY: Final = "openai_compat.places"
"""Where a request's environment has the ends of the places that it holds."""


class LazyModelRouter(ModelRouter):
    """Routes to models that are loaded when they are asked for, each with a place for the request under way."""

    def __init__(self, store: ModelPool) -> None:
        super().__init__(Settings(), {}, None)
        self._store = store

    def route(self, model: str | None) -> Route:
        name = model or ""
        backend = self._store.acquire(name, current_context().cancellation)
        request.environ[SLOTS_KEY].append(partial(self._store.release, name))
        return Route(name, backend)


class ReleaseMiddleware:
    """Middleware: what a request took is given back when its response is closed, which a server does on every path."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        capacity: list[Callable[[], None]] = []
        environ[SLOTS_KEY] = capacity

        def give_back() -> None:
            while capacity:
                capacity.pop()()

        try:
            body = self._application(environ, start_response)
        except BaseException:
            give_back()
            raise
        return ClosingIterator(body, give_back)


def create_engine_app(plan: EngineConfig) -> Application:
    """The WSGI application; the store is at `app.extensions["engine"]`."""
    settings = Settings(
        log_level=plan.log_level,
        log_format=plan.log_format,
        max_request_bytes=plan.max_request_bytes,
        validation_error_status=plan.validation_error_status,
        sse_keepalive_seconds=0.0,  # the workers fill the silences
    )
    configure_logging(settings.log_level, settings.log_format)
    logging.getLogger("openai_compat.web.request_context").setLevel(
        "WARNING"
    )  # the workers write a line for each request
    store = ModelPool(plan, ImportPathLoader(plan.loader))
    app = Application("openai_compat.sidecars.huggingface", static_folder=None)
    app.extensions["engine"] = store
    install_request_context(app, settings, DisconnectMonitor())
    routing, tokens = LazyModelRouter(store), TokenCounter(None)
    app.register_blueprint(chat.chat_blueprint(routing, ChatService(tokens)))
    app.register_blueprint(chat.completions_blueprint(routing, CompletionService(tokens)))
    app.register_blueprint(chat.embeddings_blueprint(routing, EmbeddingService(tokens)))
    app.register_blueprint(states_blueprint(store))
    register_errors(app, settings)
    app.wsgi_app = ReleaseMiddleware(app.wsgi_app)  # type: ignore[method-assign]  # how Flask takes middleware
    return app


def states_blueprint(store: ModelPool) -> Blueprint:
    """`GET /models/{id}`: what has become of a model. Asking loads nothing."""
    blueprint = Blueprint("states", __name__)

    @blueprint.get("/models/<path:model>")
    def describe(model: str) -> Response:
        facts: dict[str, Any] = store.describe(model)
        backend = store.backend(model)
        if backend is not None:
            facts["capabilities"] = capabilities_of(backend)
        return json_response(facts)

    return blueprint
