"""Leases of the engine's models whose calls do not pass through the engine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from flask import Blueprint, Response, request

from openai_compat.backends.base import missing_capability
from openai_compat.backends.llama_cpp.backend import KNOWS_TOOLS
from openai_compat.core.errors import ModelNotFoundError
from openai_compat.sidecars.huggingface.model_pool import ModelPool
from openai_compat.web.request_context import current_context

from .server_process import LlamaServer


def leases_blueprint(pool: ModelPool, on_close: Callable[[Callable[[], None]], None]) -> Blueprint:
    """Return the blueprint of `POST /leases/{id}`, whose response ends when the worker closes the connection.

    `on_close` registers a function to call when the response of the current request is closed.
    """
    blueprint = Blueprint("leases", __name__)

    @blueprint.post("/leases/<path:model>")
    def lease(model: str) -> Response:
        server = pool.acquire(model, current_context().cancellation)
        on_close(partial(pool.release, model))
        if not isinstance(server, LlamaServer):
            raise ModelNotFoundError(model)
        capability = request.args.get("capability")
        if capability and capability not in server.capabilities:
            raise missing_capability(model, capability, server.capabilities)
        headers = {KNOWS_TOOLS: str(int(server.knows_tools))}
        return Response(_hold(request.environ["gunicorn.socket"]), headers=headers, mimetype="text/plain")

    return blueprint


def _hold(connection: socket.socket) -> Iterator[bytes]:
    """Yield a byte, which sends the response's headers, and then wait until the worker closes the connection."""
    yield b"\n"
    with suppress(OSError):
        connection.recv(1)
