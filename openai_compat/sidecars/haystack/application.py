"""Application of the Haystack sidecar, with the server's own chat endpoint in front of the pipelines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flask import Blueprint, Response, current_app

from openai_compat.app import Application
from openai_compat.config.environment import quiet_haystack
from openai_compat.core import logging as logs
from openai_compat.core.settings import Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.routing.router import ModelRouter
from openai_compat.services.chat import ChatService
from openai_compat.storage import open_storage
from openai_compat.telemetry.sampler import read_memory
from openai_compat.web.client_monitor import DisconnectMonitor
from openai_compat.web.errors import register_errors
from openai_compat.web.json_response import json_response
from openai_compat.web.request_context import install_request_context
from openai_compat.web.routes.inference import chat_blueprint

from .conversations import StoredConversations
from .pipeline_backend import PipelineBackend
from .registry import PipelineRegistry

NAME = "openai_compat.sidecars.haystack"


def create_pipelines_app(settings: Settings) -> Application:
    """Return the WSGI application for the pipelines of the workers' settings."""
    quiet_haystack()
    _configure_logging(settings)
    storage = open_storage(settings.database_url, settings.data_dir, settings.store_ttl, settings.store_max_bytes)
    backends = PipelineRegistry(settings, StoredConversations(storage)).backends
    settings = replace(
        settings,
        entries={name: backend.entry for name, backend in backends.items()},
        hidden_entries={},
        model_aliases={},
        accounts="off",
        api_keys=(),  # the workers have checked the key, the size of the body and the number of calls
        max_request_bytes=sys.maxsize,
        sse_keepalive_seconds=0.0,
        log_request_bodies=False,
    )
    tokens = TokenCounter(Path(settings.tiktoken_cache_dir) if settings.tiktoken_cache_dir else None)
    app = Application(NAME, static_folder=None)
    install_request_context(app, settings, DisconnectMonitor(), lambda environ: None)
    app.register_blueprint(chat_blueprint(ModelRouter(settings, backends, None), ChatService(tokens)))
    app.register_blueprint(_states_blueprint(backends))
    register_errors(app, settings)
    return app


def _states_blueprint(backends: Mapping[str, PipelineBackend]) -> Blueprint:
    """Return the blueprint of `GET /models/{id}`, which loads the pipeline, and of `GET /report`, which loads none."""
    blueprint = Blueprint("states", __name__)

    @blueprint.get("/report")
    def report() -> Response:
        models = {name: backend.report() for name, backend in backends.items()}
        return json_response({"memory_bytes": read_memory(), "models": models})

    @blueprint.get("/models/<path:model>")
    def describe(model: str) -> Response:
        return json_response(backends[model].describe())

    return blueprint


def _configure_logging(settings: Settings) -> None:
    """Send the libraries' warnings to this server's log, and leave out what the workers log for the same call."""
    logs.configure_logging(settings.log_level, settings.log_format)
    for name in ("haystack", "pypdf"):
        logger = logging.getLogger(name)
        logger.handlers[:] = logging.getLogger(logs.LOGGER).handlers
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    # Haystack's warnings about snapshots of failed runs do not apply, because none are kept.
    logging.getLogger("haystack.utils.base_serialization").setLevel(logging.CRITICAL)
    logging.getLogger("openai_compat.server.checks").setLevel(logging.ERROR)  # this process needs no gevent
    # The calls to models have the prefix /v1.
    logging.getLogger("openai_compat.web.request_context").addFilter(lambda record: " /v1/" in record.getMessage())
    logging.getLogger("openai_compat.web.errors").addFilter(lambda _: not current_app or current_app.name != NAME)
