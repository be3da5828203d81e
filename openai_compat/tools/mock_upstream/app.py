"""Which answer a request gets: OpenAI's routes, `/__mock__/`, and for everything else a description of what came."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from itertools import count
from urllib.parse import unquote

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
    r"(?:/openai/deployments/(?P<deployment>[^/]+)|/openai/v1|/v1|/serving-endpoints)?/(?P<door>chat/completions|completions|embeddings)"
)
_MODELS = re.compile(r"(?:/openai/v1|/openai|/v1)?/models(?:/(?P<id>.+))?")
_CONTENT = re.compile(r"(?:/openai/v1|/v1)?/files/[^/]+/content")
_CACHED_BODY_BYTES = 64 * 1024
_BLOCK = bytes(range(256)) * 256


class MockApplication:
    """The fake server without its sockets."""

    def __init__(self, api_key: str | None, defaults: Options) -> None:
        """Ask for `api_key` if there is one; `defaults` are the parameters of models that name none."""
        self.ledger = RequestRecorder()
        self.request_numbers = count(1)
        self._spells = FaultCounters()
        self._defaults = defaults
        self._credentials = (f"Bearer {api_key}", api_key) if api_key else None

    def answer(self, exchange: Exchange) -> None:
        """Answer one request of a client."""
        try:
            self._check_key(exchange.request)
            self._route(exchange)
        except ApiError as error:
            exchange.respond(error.status, JSON_TYPE, error.to_bytes(), error.headers)

    def control(self, exchange: Exchange) -> None:
        """Answer one request of a test about the mock itself."""
        match exchange.request.method, exchange.request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "stats":
                _respond_json(exchange, self.ledger.to_stats())
            case "GET", "requests":
                _respond_json(exchange, [record.to_json() for record in self.ledger.records])
            case "POST", "reset":
                self.ledger.reset()
                self._spells.reset()
                _respond_json(exchange, {})
            case _:
                exchange.respond(404, JSON_TYPE, ApiError(404, "stats, requests, reset").to_bytes())

    def _check_key(self, request: Request) -> None:
        """Raise `ApiError` unless the request carries the key."""
        if self._credentials is None:
            return
        bearer, api_key = self._credentials
        if request.headers.get("authorization") != bearer and request.headers.get("api-key") != api_key:
            raise ApiError(401)

    def _route(self, exchange: Exchange) -> None:
        """Find the answer by method and path."""
        method, path = exchange.request.method, exchange.request.path
        if method == "POST" and (match := _INFERENCE.fullmatch(path)):
            self._infer(exchange, match["door"], unquote(match["deployment"] or ""))
        elif method in ("GET", "HEAD") and (match := _MODELS.fullmatch(path)):
            _respond_json(exchange, _models(unquote(match["id"] or "")))
        elif method == "GET" and _CONTENT.fullmatch(path):
            _send_file(exchange)
        else:
            _respond_json(exchange, _describe(exchange.request))

    def _infer(self, exchange: Exchange, door: str, deployment: str) -> None:
        """Let the model that the request names behave as it does."""
        body = exchange.request.body
        prepare = _prepare if len(body) <= _CACHED_BODY_BYTES else _prepare.__wrapped__
        name, model, answer = prepare(door, deployment, body, self._defaults)
        self.ledger.models[name] += 1
        behave = send_healthy if self._spells.is_over(name, answer.options) else model.behave
        behave(exchange, answer)


@lru_cache(maxsize=64)
def _prepare(door: str, deployment: str, body: bytes, defaults: Options) -> tuple[str, Model, MockAnswer]:
    """Return the model's name, its behaviour and the healthy answer; kept, as benchmarks ask the same all the time."""
    payload = _parse(body)
    name = deployment or payload.get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "you must provide a model parameter")
    model, options = find_model(name, defaults)
    return name, model, build_answer(door, payload, name, options)


def _parse(body: bytes) -> Json:
    """Return the JSON object in `body`, or raise `ApiError`."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    return payload


def _models(name: str) -> Json:
    """Return the list of models, or the one called `name`."""
    if not name:
        return {"object": "list", "data": [_models(row) for row in MODELS]}
    if name.partition(":")[0] not in MODELS:
        raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}


def _send_file(exchange: Exchange) -> None:
    """Stream the content of a file: every byte value, in four blocks."""
    exchange.start("application/octet-stream")
    for _ in range(4):
        exchange.send(_BLOCK)
        exchange.pause(0.01)
    exchange.finish()


def _describe(request: Request) -> Json:
    """Return what came."""
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
    """Answer 200 with an object."""
    exchange.respond(200, JSON_TYPE, json.dumps(body, indent=2).encode())
