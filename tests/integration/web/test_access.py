"""API keys and CORS."""

from __future__ import annotations

import hmac

import pytest
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from openai_compat.web import auth
from tests.integration.web.conftest import MakeClient

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
OPEN = {
    "/health",
    "/healthz",
    "/readyz",
    "/api/v1/healthcheck",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/docs/assets/<name>",
    "/docs/assets/start.js",
    "/",
    "/home/<name>",
    "/admin",
}
"""Routes that need no key of a caller: health checks, which send none, metrics, and pages with public content."""


@pytest.fixture
def guarded(make_client: MakeClient) -> FlaskClient:
    return make_client(API_KEYS="first-key, second-key", OPENAI_BASE_URL="http://127.0.0.1:9/v1", DEFAULT_MODEL="m")


def test_every_route_needs_a_key_unless_it_is_listed_as_open(guarded: FlaskClient) -> None:
    def call(rule: Rule, headers: dict[str, str]) -> int:
        path = rule.rule
        for name in rule.arguments:
            path = path.replace(f"<path:{name}>", "x").replace(f"<{name}>", "x")
        method = next(iter(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})))
        return guarded.open(path, method=method, headers=headers).status_code

    rules = list(guarded.application.url_map.iter_rules())
    assert {rule.rule for rule in rules} >= OPEN
    for rule in rules:
        assert (call(rule, {}) == 401) is (rule.rule not in OPEN), rule.rule
        if rule.rule not in OPEN:
            assert call(rule, {"Authorization": "Bearer wrong"}) == 401, rule.rule


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer second-key"},
        {"api-key": "second-key"},
        {"Authorization": "Basic Zm9yOmEtcHJveHk=", "api-key": "second-key"},
        {"Authorization": "Bearer first-key", "api-key": "of another server"},
        {"x-api-key": "first-key"},
        {"Authorization": "Basic Zm9yOmEtcHJveHk=", "x-api-key": "second-key"},
        {"api-key": "first-key", "x-api-key": "of another server"},
    ],
)
def test_a_valid_key_is_accepted(make_client: MakeClient, headers: dict[str, str]) -> None:
    client = make_client(API_KEYS="first-key, second-key")
    assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "first-key"},
        {"Authorization": "Basic first-key"},
        {"Authorization": "Bearer first-ke"},
        {"Authorization": "Bearer first-key2"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer ключ"},
        {"api-key": "nope"},
    ],
)
def test_a_wrong_key_is_a_401_that_does_not_repeat_it(make_client: MakeClient, headers: dict[str, str]) -> None:
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    response = make_client(API_KEYS="first-key").post("/v1/chat/completions", json=CHAT, headers=encoded)
    assert (response.status_code, response.get_json()["error"]["code"]) == (401, "invalid_api_key")
    assert "first" not in response.text


def test_every_key_is_compared_whichever_is_right(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the response time would reveal which one it is."""
    compared: list[bytes] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda key, sent: compared.append(key) or compare(key, sent))
    client = make_client(API_KEYS="first-key, second-key, third-key")
    for key in ("first-key", "third-key", "wrong"):
        client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert compared == [b"first-key", b"second-key", b"third-key"] * 3


def test_without_configured_keys_every_request_is_accepted(client: FlaskClient) -> None:
    for headers in ({}, {"Authorization": "Bearer any-key-works"}):
        assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


ALLOWED, OTHER = "http://localhost:3000", "https://evil.test"


def preflight(client: FlaskClient, origin: str) -> dict[str, str]:
    requested = "authorization,content-type,x-stainless-os,x-stainless-retry-count,openai-organization,openai-beta"
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": requested}
    response = client.options("/v1/chat/completions", headers=headers)
    assert response.status_code == 200
    return {name.lower(): value for name, value in response.headers}


def test_a_page_of_an_allowed_origin_may_send_all_headers_of_the_sdks(client: FlaskClient) -> None:
    headers = preflight(client, ALLOWED)
    assert headers["access-control-allow-origin"] == ALLOWED
    assert "POST" in headers["access-control-allow-methods"]
    allowed = {name.strip() for name in headers["access-control-allow-headers"].lower().split(",")}
    assert allowed >= {"authorization", "content-type", "x-stainless-os", "openai-organization", "openai-beta"}


def test_a_page_of_another_origin_is_not_allowed(client: FlaskClient) -> None:
    assert "access-control-allow-origin" not in preflight(client, OTHER)


def test_a_page_of_an_allowed_origin_can_read_answers_and_errors(client: FlaskClient) -> None:
    for body in (CHAT, {}):
        response = client.post("/v1/chat/completions", json=body, headers={"Origin": ALLOWED})
        assert response.headers["access-control-allow-origin"] == ALLOWED
        exposed = response.headers["access-control-expose-headers"]
        assert "x-request-id" in exposed
        assert "retry-after" in exposed


def test_the_wildcard_origin_never_allows_credentials(make_client: MakeClient) -> None:
    response = make_client(CORS_ALLOW_ORIGINS="*").get("/v1/models", headers={"Origin": OTHER})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers


def test_every_response_varies_by_origin(client: FlaskClient) -> None:
    for headers in ({}, {"Origin": ALLOWED}, {"Origin": OTHER}):
        assert "Origin" in client.get("/v1/models", headers=headers).headers.get("Vary", ""), headers


def test_the_preflight_needs_no_key(guarded: FlaskClient) -> None:
    assert preflight(guarded, ALLOWED)["access-control-allow-origin"] == ALLOWED
