"""Requests that a browser sends for pages of other sites, and requests for other host names."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.integration.web.conftest import MakeClient
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

CHAT = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "hi"}]}
BODY = json.dumps(CHAT)
ALLOWED, EVIL = "http://localhost:3000", "https://evil.test"
CROSS_SITE = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
FOREIGN: dict[str, dict[str, str]] = {
    "cross-site": CROSS_SITE,
    "same-site": {"Origin": "http://localhost:9999", "Sec-Fetch-Site": "same-site"},
    "without an origin": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "of an old browser": {"Origin": EVIL},
    "sandboxed": {"Origin": "null"},
    "of a prefix": {"Origin": "http://localhost"},
    "of a longer name": {"Origin": f"{ALLOWED}.evil.test"},
    "of another port": {"Origin": "http://localhost:30000"},
    "without a scheme": {"Origin": "localhost:8000"},
    "empty": {"Origin": ""},
}
OWN: dict[str, dict[str, str]] = {
    "curl and SDKs": {},
    "fetch of Node": {"Sec-Fetch-Mode": "cors"},
    "own page": {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
    "own page without Sec-Fetch-Site": {"Origin": "http://localhost:8000"},
    "own page behind TLS": {"Origin": "https://api.test", "X-Forwarded-Host": "api.test:443"},
    "own page behind two proxies": {"Origin": "https://api.test", "X-Forwarded-Host": "api.test, inner"},
    "entered by the user": {"Sec-Fetch-Site": "none"},
    "allowed page": {"Origin": ALLOWED, "Sec-Fetch-Site": "same-site"},
    "allowed page in capitals": {"Origin": ALLOWED.upper(), "Sec-Fetch-Site": "cross-site"},
}
DOORS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/chat/completions"),
    ("POST", "/openai/deployments/m/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/resp_1"),
    ("POST", "/v1/conversations"),
    ("DELETE", "/v1/conversations/conv_1"),
    ("POST", "/v1/conversations/conv_1/items"),
    ("GET", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/chatcmpl-1"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("DELETE", "/files/x"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/x"),
    ("GET", "/v1/nowhere"),
]


def send(client: FlaskClient, headers: dict[str, str], method: str = "POST", path: str = DOORS[0][1]) -> TestResponse:
    body = {"data": BODY, "content_type": "application/json"} if method == "POST" else {}
    return client.open(path, method=method, headers=headers, base_url="http://localhost:8000", **body)


def code_of(response: TestResponse) -> str | None:
    code: str | None = response.get_json()["error"]["code"]
    return code


@pytest.fixture
def forwarding(make_client: MakeClient, upstream: MockUpstream) -> FlaskClient:
    upstream.reset()
    return make_client(OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY="sk-of-the-server")


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_pages_of_other_sites_are_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    response = send(client, headers)
    assert (response.status_code, code_of(response)) == (403, "cross_site_request")


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_other_clients_and_own_pages_are_answered(client: FlaskClient, headers: dict[str, str]) -> None:
    assert send(client, headers).status_code == 200


def test_every_door_refuses_them_before_the_upstream_is_called(forwarding: FlaskClient, upstream: MockUpstream) -> None:
    for method, path in DOORS:
        response = send(forwarding, CROSS_SITE, method, path)
        assert (response.status_code, code_of(response)) == (403, "cross_site_request"), path
    assert upstream.requests() == []


def test_a_chat_page_gets_the_refusal_as_a_message(client: FlaskClient) -> None:
    response = send(client, CROSS_SITE, path="/ask")
    assert (response.status_code, response.get_json()["content"]) == (403, "This page may not use the chat here.")


def test_a_wildcard_allows_every_page(make_client: MakeClient) -> None:
    client = make_client(CORS_ALLOW_ORIGINS="*")
    for name, headers in FOREIGN.items():
        assert send(client, headers).status_code == 200, name


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/home/home.js", "/healthz"])
def test_links_on_other_sites_lead_to_the_public_pages(client: FlaskClient, path: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    assert send(client, headers, "GET", path).status_code == 200


@pytest.mark.parametrize("site", [{"Origin": ALLOWED}, {"Sec-Fetch-Site": "same-origin"}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/ask", "/v1/responses"])
def test_a_browser_must_name_the_content_type(forwarding: FlaskClient, path: str, site: dict[str, str]) -> None:
    assert forwarding.post(path, data=BODY, headers=site).status_code in {400, 415}  # /ask has two error statuses


def test_other_clients_need_no_content_type(client: FlaskClient) -> None:
    for headers in ({}, {"Sec-Fetch-Mode": "cors"}):
        assert client.post("/v1/chat/completions", data=BODY, headers=headers).status_code == 200


@pytest.fixture(scope="module")
def on_loopback() -> Iterator[LiveServer]:
    with LiveServer({"ALLOWED_HOSTS": ""}) as server:
        yield server


@pytest.fixture(scope="module")
def named() -> Iterator[LiveServer]:
    with LiveServer({"ALLOWED_HOSTS": "api.example.com, 10.0.0.7"}) as server:
        yield server


def call_as(server: LiveServer, host: str, path: str = "/v1/models") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    result = response.status, response.read().decode()
    connection.close()
    return result


LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.0.0.2", "[::1]:8000", "localhost.", ""]
OTHER_HOSTS = ["evil.test", "evil.test:8000", "localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.8", "[::1", "a:b:c"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_names_are_always_answered(on_loopback: LiveServer, named: LiveServer, host: str) -> None:
    assert call_as(on_loopback, host)[0] == call_as(named, host)[0] == 200


@pytest.mark.parametrize("host", OTHER_HOSTS)
@pytest.mark.parametrize("path", ["/v1/models", "/", "/nowhere"])
def test_a_server_on_loopback_answers_to_no_other_name(on_loopback: LiveServer, host: str, path: str) -> None:
    """A page whose name was resolved to this machine ("DNS rebinding") sends its own name."""
    status, text = call_as(on_loopback, host, path)
    assert (status, json.loads(text)["error"]["code"]) == (403, "unknown_host")


@pytest.mark.parametrize("host", ["api.example.com", "API.example.com.:443", "10.0.0.7:8000"])
def test_configured_names_are_answered_on_every_port(named: LiveServer, host: str) -> None:
    assert call_as(named, host)[0] == 200
    assert call_as(named, f"x{host}")[0] == 403


def test_health_checks_may_use_any_address(named: LiveServer) -> None:
    assert call_as(named, "10.1.2.3:8000", "/healthz")[0] == 200


def test_a_server_on_another_address_answers_to_every_name(client: FlaskClient) -> None:
    for address in ("0.0.0.0", "::", "10.0.0.7"):  # noqa: S104 - the address that WSGI reports
        environ = {"SERVER_NAME": address, "HTTP_HOST": "api.example.com"}
        assert client.get("/v1/models", environ_overrides=environ).status_code == 200
