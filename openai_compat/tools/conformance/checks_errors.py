"""Checks of error responses and of headers."""

from __future__ import annotations

import json

from .client import CheckSkipped, ConformanceClient, excerpt, expect, require_error
from .registry import Section

ERRORS = Section("errors")
HEADERS = Section("headers")
NESTING = 20_000


@ERRORS.check(
    "an unknown path returns 404 with an error object",
    why="clients show `error.message`, not an HTML page",
)
def unknown_path(client: ConformanceClient) -> None:
    require_error(client.send("GET", "no/such/path"), 404)


@ERRORS.check(
    "a wrong method returns 405 or 404 with an error object",
    why="clients show `error.message`, not an HTML page",
)
def wrong_method(client: ConformanceClient) -> None:
    require_error(client.send("DELETE", "embeddings"), 404, 405)


@ERRORS.check(
    "invalid JSON returns 400",
    why="OpenAI returns 400, and clients retry a 500 in vain",
)
def invalid_json(client: ConformanceClient) -> None:
    require_error(client.send("POST", "chat/completions", b'{"model": '), 400)


@ERRORS.check(
    "a body that is not an object returns 400",
    why="OpenAI returns 400, and clients retry a 500 in vain",
)
def body_not_an_object(client: ConformanceClient) -> None:
    for body in (b"[1]", b"null", b"3"):
        require_error(client.send("POST", "chat/completions", body), 400)


@ERRORS.check(
    "missing messages return 400 with `messages` in `param`",
    why="forms highlight the field that `param` names",
)
def messages_missing(client: ConformanceClient) -> None:
    error = require_error(client.post("chat/completions", {"model": client.target.model}), 400)
    expect("messages" in str(error["param"]), f"param {error['param']!r}")


@ERRORS.check(
    "messages of a wrong type return 400 with `messages` in `param`",
    why="forms highlight the field that `param` names",
)
def messages_of_a_wrong_type(client: ConformanceClient) -> None:
    error = require_error(client.post("chat/completions", {"model": client.target.model, "messages": "hi"}), 400)
    expect("messages" in str(error["param"]), f"param {error['param']!r}")


@ERRORS.check(
    "unusual JSON never returns a 5xx",
    why="NaN, deep nesting and lone surrogates have crashed servers",
)
def unusual_json(client: ConformanceClient) -> None:
    plain = client.chat_payload()
    nested = {**plain, "metadata": json.loads("[" * 200 + "]" * 200)}
    bodies = {
        "NaN": json.dumps({**plain, "temperature": float("nan")}).encode(),
        "a lone surrogate": json.dumps(client.chat_payload("\ud800")).encode(),
        "200 levels": json.dumps(nested).encode(),
        f"{NESTING} levels": b"[" * NESTING + b"]" * NESTING,
    }
    for name, body in bodies.items():
        response = client.send("POST", "chat/completions", body)
        expect(response.status < 500, f"{name}: status {response.status}: {excerpt(response.body)}")


@ERRORS.check(
    "an unknown model returns 404 `model_not_found`",
    why="agents switch to another model on this code",
)
def unknown_model(client: ConformanceClient) -> None:
    payload = {**client.chat_payload(), "model": "no-such-model-anywhere"}
    response = client.post("chat/completions", payload)
    if response.status == 200:
        raise CheckSkipped("the server accepts any model name")
    error = require_error(response, 404)
    expect(error["code"] == "model_not_found", f"code {error['code']!r}")


@ERRORS.check(
    "a wrong key returns 401 `invalid_api_key`",
    why="`AuthenticationError` tells users to check their key",
)
def wrong_key(client: ConformanceClient) -> None:
    if "Authorization" not in client.target.headers:
        raise CheckSkipped("requires --api-key")
    payload = client.chat_payload()
    response = client.post("chat/completions", payload, {"Authorization": "Bearer sk-wrong"})
    if response.status == 200:
        raise CheckSkipped("the server accepts any key")
    error = require_error(response, 401)
    expect(error["code"] == "invalid_api_key", f"code {error['code']!r}")


@HEADERS.check(
    "a response has an x-request-id",
    why="users send `_request_id` to support",
)
def request_id(client: ConformanceClient) -> None:
    expect(client.chat_response.headers.get("x-request-id"), "no x-request-id")


@HEADERS.check(
    "an error response has an x-request-id",
    why="users report errors by it",
)
def request_id_of_errors(client: ConformanceClient) -> None:
    response = client.send("POST", "chat/completions", b'{"model": ')
    expect(response.headers.get("x-request-id"), f"no x-request-id (status {response.status})")


@HEADERS.check(
    "an event stream has an x-request-id",
    why="a stream cannot be found in the log without it",
)
def request_id_of_streams(client: ConformanceClient) -> None:
    expect(client.stream_response.headers.get("x-request-id"), "no x-request-id")


@HEADERS.check(
    "a response is compressed only if the client accepts it",
    why="some clients read the bytes without decoding",
)
def compression(client: ConformanceClient) -> None:
    encoding = client.chat_response.headers.get("content-encoding", "identity")
    expect(encoding == "identity", f"content-encoding {encoding}, not requested")


@HEADERS.check(
    "CORS allows the headers of the official client",
    why="the preflight request of a browser fails otherwise",
)
def preflight(client: ConformanceClient) -> None:
    origin = client.target.origin
    if origin is None:
        raise CheckSkipped("requires --origin")
    required = ("authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count")
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = ",".join(required)
    response = client.send("OPTIONS", "chat/completions", None, headers)
    allowed = response.headers.get("access-control-allow-headers", "").lower()
    expect(response.status in {200, 204}, f"status {response.status}")
    expect(response.headers.get("access-control-allow-origin") in {origin, "*"}, "the origin is not allowed")
    rejected = [name for name in required if name not in allowed and allowed != "*"]
    expect(not rejected, f"not allowed: {', '.join(rejected)}")
    allows_any = response.headers.get("access-control-allow-origin") == "*"
    expect(
        not allows_any or "access-control-allow-credentials" not in response.headers,
        "any origin is allowed together with credentials",
    )
