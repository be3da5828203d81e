"""Leases of the engine's models whose calls do not pass through the engine."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from flask import Blueprint, Response, request

from openai_compat.backends.base import missing_capability
from openai_compat.core.errors import ModelNotFoundError, UnsupportedParameterError
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
        _check(server, request.args)
        return Response(_hold(request.environ["gunicorn.socket"]), mimetype="text/plain")

    return blueprint


def _check(server: LlamaServer, wanted: Mapping[str, str]) -> None:
    """Raise a RequestError if the model cannot do what the call needs."""
    capability = wanted.get("capability")
    if capability and capability not in server.capabilities:
        raise missing_capability(server.name, capability, server.capabilities)
    if wanted.get("tools") == "1" and not server.knows_tools:
        raise UnsupportedParameterError("tools", server.name, "its chat template has no format for tools.")


def _hold(connection: socket.socket) -> Iterator[bytes]:
    """Yield a byte, which sends the response's headers, and then wait until the worker closes the connection."""
    yield b"\n"
    with suppress(OSError):
        connection.recv(1)
