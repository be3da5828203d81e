"""WSGI application of the engine, which puts the server's endpoints and services in front of a `ModelPool`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request
from werkzeug.wsgi import ClosingIterator

from openai_compat.app import Application
from openai_compat.backends.base import capabilities_of
from openai_compat.backends.local.engine_config import EngineConfig
from openai_compat.core.logging import configure_logging
from openai_compat.core.settings import Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.token_decoder import TokenDecoder
from openai_compat.sidecars.llama_cpp.leases import leases_blueprint
from openai_compat.telemetry.sampler import read_memory
from openai_compat.web.client_monitor import DisconnectMonitor
from openai_compat.web.errors import register_errors
from openai_compat.web.json_response import json_response
from openai_compat.web.request_context import current_context, install_request_context
from openai_compat.web.routes import inference

from .loader import KindLoader
from .model_pool import ModelPool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

RELEASES_KEY: Final = "openai_compat.engine.releases"
"""Key of the WSGI environment for the functions that release what the request holds."""


class LazyModelRouter(ModelRouter):
    """Router that loads a model on its first request and acquires a slot of it for each request."""

    def __init__(self, pool: ModelPool) -> None:
        super().__init__(Settings(), {}, None)
        self._pool = pool

    def route(self, model: str | None) -> Route:
        name = model or ""
        backend = self._pool.acquire(name, current_context().cancellation)
        release_at_end(partial(self._pool.release, name))
        return Route(name, backend)


def release_at_end(release: Callable[[], None]) -> None:
    """Call `release` when the response of the current request is closed."""
    request.environ[RELEASES_KEY].append(release)


class ReleaseMiddleware:
    """WSGI middleware that releases a request's slots when its response is closed, which servers do on every path."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        releases: list[Callable[[], None]] = []
        environ[RELEASES_KEY] = releases

        def release_all() -> None:
            while releases:
                releases.pop()()

        try:
            body = self._application(environ, start_response)
        except BaseException:
            release_all()
            raise
        return ClosingIterator(body, release_all)


def create_engine_app(config: EngineConfig, folder: Path) -> Application:
    """Return the engine's WSGI application, with the model pool in `app.extensions["engine"]`.

    `folder` is the runtime directory, for the sockets of models with a process of their own.
    """
    settings = Settings(
        log_level=config.log_level,
        log_format=config.log_format,
        max_request_bytes=config.max_request_bytes,
        validation_error_status=config.validation_error_status,
        sse_keepalive_seconds=0.0,  # the workers send the keep-alive comments
    )
    configure_logging(settings.log_level, settings.log_format)
    # The workers write the access log.
    logging.getLogger("openai_compat.web.request_context").setLevel("WARNING")
    pool = ModelPool(config, KindLoader(config, folder))
    app = Application("openai_compat.sidecars.huggingface", static_folder=None)
    app.extensions["engine"] = pool
    install_request_context(app, settings, DisconnectMonitor(), lambda environ: None)
    router, tokens = LazyModelRouter(pool), TokenCounter(None)
    decoder = TokenDecoder(Path(config.tiktoken_cache_dir) if config.tiktoken_cache_dir else None)
    app.register_blueprint(inference.chat_blueprint(router, ChatService(tokens)))
    app.register_blueprint(inference.completions_blueprint(router, CompletionService(tokens)))
    app.register_blueprint(inference.embeddings_blueprint(router, EmbeddingService(tokens, decoder)))
    app.register_blueprint(states_blueprint(pool))
    app.register_blueprint(leases_blueprint(pool, release_at_end))
    register_errors(app, settings)
    app.wsgi_app = ReleaseMiddleware(app.wsgi_app)  # type: ignore[method-assign]  # how Flask takes middleware
    return app


def states_blueprint(pool: ModelPool) -> Blueprint:
    """Return the blueprint of `GET /models/{id}` and `GET /report`, which report states and load nothing."""
    blueprint = Blueprint("states", __name__)

    @blueprint.get("/report")
    def report() -> Response:
        return json_response({"memory_bytes": read_memory(), "models": pool.report()})

    @blueprint.get("/models/<path:model>")
    def describe(model: str) -> Response:
        state: dict[str, Any] = pool.describe(model)
        backend = pool.backend(model)
        if backend is not None:
            state.setdefault("capabilities", capabilities_of(backend))
        return json_response(state)

    return blueprint
