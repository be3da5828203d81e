"""Routing of requests to the endpoints of OpenAI and Anthropic, and to `/__mock__/`.

Any other request is described in the response.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from itertools import count
from urllib.parse import unquote

from openai_compat.core.anthropic import VERSION_HEADER as ANTHROPIC_VERSION

from .answers import JSON_TYPE, MockAnswer, build_answer
from .delivery import send_healthy
from .errors import ApiError, Json
from .exchange import Exchange, Request
from .faults import MODELS, FaultCounters, Model, find_model
from .options import Options
from .recorder import RequestRecorder
from .replies import CREATED

CONTROL_PREFIX = "/__mock__/"
_INFERENCE = re.compile(
    r"(?:/openai/deployments/(?P<deployment>[^/]+)|/openai/v1|/openai|/v1|/serving-endpoints)?/(?P<endpoint>chat/completions|completions|embeddings|responses)"
)
_MESSAGES = re.compile(r"(?:/anthropic)?(?:/v1)?/(?P<endpoint>messages(?:/count_tokens)?)")
_MODELS = re.compile(r"(?:/openai/v1|/openai|/v1)?/models(?:/(?P<id>.+))?")
_CONTENT = re.compile(r"(?:/openai/v1|/v1)?/files/[^/]+/content")
_CACHED_BODY_BYTES = 64 * 1024
_BLOCK = bytes(range(256)) * 256


class MockApplication:
    """The mock server without its sockets."""

    def __init__(self, api_key: str | None, defaults: Options) -> None:
        """Require `api_key` unless it is None. `defaults` are the options of models whose names have none."""
        self.recorder = RequestRecorder()
        self.request_numbers = count(1)
        self._fault_counters = FaultCounters()
        self._defaults = defaults
        self._credentials = (f"Bearer {api_key}", api_key) if api_key else None

    def answer(self, exchange: Exchange) -> None:
        """Handle a request of a client."""
        try:
            self._check_key(exchange.request)
            self._route(exchange)
        except ApiError as error:
            is_anthropic = _is_anthropic(exchange.request)
            exchange.respond(error.status, JSON_TYPE, error.to_bytes(is_anthropic=is_anthropic), error.headers)

    def control(self, exchange: Exchange) -> None:
        """Handle a request to `/__mock__/`."""
        match exchange.request.method, exchange.request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "stats":
                _respond_json(exchange, self.recorder.to_stats())
            case "GET", "requests":
                _respond_json(exchange, [record.to_json() for record in self.recorder.records])
            case "POST", "reset":
                self.recorder.reset()
                self._fault_counters.reset()
                _respond_json(exchange, {})
            case _:
                exchange.respond(404, JSON_TYPE, ApiError(404, "stats, requests, reset").to_bytes())

    def _check_key(self, request: Request) -> None:
        """Raise `ApiError` unless the request has the key."""
        if self._credentials is None:
            return
        bearer, api_key = self._credentials
        keys = (request.headers.get("api-key"), request.headers.get("x-api-key"))
        if request.headers.get("authorization") != bearer and api_key not in keys:
            raise ApiError(401)

    def _route(self, exchange: Exchange) -> None:
        """Handle a request by its method and path."""
        method, path = exchange.request.method, exchange.request.path
        if method == "POST" and (match := _INFERENCE.fullmatch(path)):
            self._infer(exchange, match["endpoint"], unquote(match["deployment"] or ""))
        elif method == "POST" and (match := _MESSAGES.fullmatch(path)):
            if ANTHROPIC_VERSION not in exchange.request.headers:
                raise ApiError(400, f"{ANTHROPIC_VERSION}: header is required")
            self._infer(exchange, match["endpoint"], "")
        elif method in ("GET", "HEAD") and (match := _MODELS.fullmatch(path)):
            list_models = _anthropic_models if _is_anthropic(exchange.request) else _models
            _respond_json(exchange, list_models(unquote(match["id"] or "")))
        elif method == "GET" and _CONTENT.fullmatch(path):
            _send_file(exchange)
        else:
            _respond_json(exchange, _describe(exchange.request))

    def _infer(self, exchange: Exchange, endpoint: str, deployment: str) -> None:
        """Run the behaviour of the model that the request names."""
        body = exchange.request.body
        prepare = _prepare if len(body) <= _CACHED_BODY_BYTES else _prepare.__wrapped__
        name, model, answer = prepare(endpoint, deployment, body, self._defaults)
        self.recorder.models[name] += 1
        behave = send_healthy if self._fault_counters.is_over(name, answer.options) else model.behave
        behave(exchange, answer)


@lru_cache(maxsize=64)
def _prepare(endpoint: str, deployment: str, body: bytes, defaults: Options) -> tuple[str, Model, MockAnswer]:
    """Return the model's name, the model and its healthy answer.

    Results are cached because benchmarks repeat the same request.

    Raises:
        ApiError: the request is invalid.
    """
    payload = _parse(body)
    name = deployment or payload.get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "you must provide a model parameter")
    model, options = find_model(name, defaults)
    return name, model, build_answer(endpoint, payload, name, options)


def _parse(body: bytes) -> Json:
    """Return the JSON object in `body`.

    Raises:
        ApiError: it is not one.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    return payload


def _models(name: str) -> Json:
    """Return the list of models, or the model called `name`.

    Raises:
        ApiError: there is no such model.
    """
    if not name:
        return {"object": "list", "data": [_models(listed) for listed in MODELS]}
    if name.partition(":")[0] not in MODELS:
        raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}


def _anthropic_models(name: str) -> Json:
    """Return the list of models, or the model called `name`, in Anthropic's form.

    Raises:
        ApiError: there is no such model.
    """
    if not name:
        data = [_anthropic_models(listed) for listed in MODELS]
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
    _models(name)
    return {"type": "model", "id": name, "display_name": name, "created_at": "2023-11-14T22:13:20Z"}


def _is_anthropic(request: Request) -> bool:
    """Return True if a client of Anthropic's API sent the request."""
    return ANTHROPIC_VERSION in request.headers or _MESSAGES.fullmatch(request.path) is not None


def _send_file(exchange: Exchange) -> None:
    """Send the content of a file in four blocks, each with every byte value."""
    exchange.start("application/octet-stream")
    for _ in range(4):
        exchange.send(_BLOCK)
        exchange.pause(0.01)
    exchange.finish()


def _describe(request: Request) -> Json:
    """Return a description of the request."""
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body_bytes": len(request.body),
        "body_sha256": hashlib.sha256(request.body).hexdigest(),
        "content_type": request.headers.get("content-type"),
    }


def _respond_json(exchange: Exchange, body: Json | list[Json]) -> None:
    """Respond with status 200 and a JSON body."""
    exchange.respond(200, JSON_TYPE, json.dumps(body, indent=2).encode())
