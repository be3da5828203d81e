"""Sessions of the admin page: who gets one, what it permits, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from openai_compat.web import admin_sessions
from tests.integration.web.conftest import MakeClient
from tests.support.admin_session import ADMIN_KEY, ORIGIN, AdminSession

PROJECTS = "api/organization/projects"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def client(folder: Path) -> Iterator[FlaskClient]:
    client = make(folder)
    yield client
    client.application.extensions["openai_compat"].close()


def make(folder: Path, **settings: str) -> FlaskClient:
    environ = {"DATA_DIR": str(folder), "ADMIN_API_KEY": ADMIN_KEY, "SECRET_KEY": "secret-1", **settings}
    return create_app(environment.load(environ)).test_client()


def test_the_cookie_is_for_the_page_alone_and_hidden_from_scripts(client: FlaskClient) -> None:
    response = client.post("/admin/session", json={"admin_api_key": ADMIN_KEY}, headers=ORIGIN)
    (cookie,) = response.headers.getlist("Set-Cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith("admin_session=")
    assert {"HttpOnly", "SameSite=Strict", "Max-Age=43200"} <= set(attributes)
    assert "Secure" not in attributes
    assert not any(attribute.startswith("Path") for attribute in attributes)  # browsers take the folder, /admin
    assert ADMIN_KEY not in cookie + response.text
    assert response.headers["Cache-Control"] == "no-store"


def test_the_cookie_is_secure_under_https(client: FlaskClient) -> None:
    headers = {"Origin": "https://localhost"}
    response = client.post(
        "/admin/session", json={"admin_api_key": ADMIN_KEY}, headers=headers, base_url="https://localhost"
    )
    assert "; Secure;" in response.headers["Set-Cookie"]


@pytest.mark.parametrize("path", ["overview", "models", "calls", "calls/call_1", "accounts", "organization/projects"])
def test_nothing_is_shown_without_a_session(client: FlaskClient, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {ADMIN_KEY}"}):
        response = client.get(f"/admin/api/{path}", headers=headers)
        assert (response.status_code, response.get_json()["error"]["code"]) == (401, "invalid_api_key")


def test_every_endpoint_of_the_page_needs_a_session(client: FlaskClient) -> None:
    rules = [rule for rule in client.application.url_map.iter_rules() if rule.rule.startswith("/admin/api")]
    assert len(rules) > 20
    for rule in rules:
        path = rule.rule
        for name in rule.arguments:
            path = path.replace(f"<path:{name}>", "x").replace(f"<{name}>", "x")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert client.open(path, method=method, headers=ORIGIN).status_code == 401, rule.rule


def test_the_key_is_in_no_log_of_bodies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AdminSession(make(tmp_path, LOG_REQUEST_BODIES="true"))
    logged = capsys.readouterr().err
    assert "request body" in logged
    assert ADMIN_KEY not in logged


@pytest.mark.parametrize("key", ["wrong", "", "admin-key-10", "ädmin"])
def test_another_key_opens_no_session(client: FlaskClient, key: str) -> None:
    response = client.post("/admin/session", json={"admin_api_key": key}, headers=ORIGIN)
    assert response.status_code == 401
    assert "Set-Cookie" not in response.headers


def test_a_session_reads_and_changes_accounts(client: FlaskClient) -> None:
    session = AdminSession(client)
    project = session.send("POST", PROJECTS, {"name": "search"}).json
    assert project["id"] in [found["id"] for found in session.get("accounts")["projects"]]


def test_a_new_key_is_shown_once_and_kept_by_no_cache(client: FlaskClient) -> None:
    session = AdminSession(client)
    project = session.send("POST", PROJECTS, {"name": "search"}).json
    response = session.send("POST", f"{PROJECTS}/{project['id']}/api_keys", {"name": "ci"})
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json["value"] not in str(session.get("accounts"))


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_change_without_the_token_is_refused(client: FlaskClient, token: str | None) -> None:
    AdminSession(client)
    headers = ORIGIN if token is None else {**ORIGIN, "X-CSRF-Token": token}
    response = client.post(f"/admin/{PROJECTS}", json={"name": "search"}, headers=headers)
    assert (response.status_code, response.get_json()["error"]["code"]) == (403, "invalid_csrf_token")


def test_the_token_of_another_session_is_refused(client: FlaskClient) -> None:
    first, second = AdminSession(client), AdminSession(client)  # the client has the cookie of the second one
    assert first.send("POST", PROJECTS, {"name": "search"}).status_code == 403
    assert second.send("POST", PROJECTS, {"name": "search"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},  # may call models by default, and is the same site for cookies
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
        {},
    ],
)
def test_a_request_of_another_origin_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    session = AdminSession(client)
    token = {"X-CSRF-Token": session.token}
    for method, path, body in (
        ("POST", f"/admin/{PROJECTS}", {"name": "search"}),
        ("POST", "/admin/session", {"admin_api_key": ADMIN_KEY}),
        ("DELETE", "/admin/session", None),
    ):
        response = client.open(path, method=method, json=body, headers={**headers, **token})
        assert (response.status_code, response.get_json()["error"]["code"]) == (403, "cross_site_request"), path


def test_a_page_of_an_origin_that_may_call_models_reads_nothing(client: FlaskClient) -> None:
    AdminSession(client)
    response = client.get("/admin/api/calls", headers={"Origin": "http://localhost:3000"})
    assert response.status_code == 403


def test_signing_out_deletes_the_cookie(client: FlaskClient) -> None:
    session = AdminSession(client)
    response = session.send("DELETE", "session")
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert client.get("/admin/session").status_code == 401


def test_a_session_expires(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    AdminSession(client)
    assert client.get("/admin/session").status_code == 200
    monkeypatch.setattr(admin_sessions, "MAX_AGE", -1)
    assert client.get("/admin/session").status_code == 401


@pytest.mark.parametrize("change", [{"ADMIN_API_KEY": "admin-key-2"}, {"SECRET_KEY": "secret-2"}])
def test_another_admin_key_or_secret_ends_sessions(tmp_path: Path, change: dict[str, str]) -> None:
    assert cookie_works(tmp_path, {})
    assert not cookie_works(tmp_path, change)


def cookie_works(folder: Path, change: dict[str, str]) -> bool:
    """Return True if a server with changed settings accepts the cookie of an earlier one."""
    before, after = make(folder), make(folder, **change)
    AdminSession(before)
    cookie = before.get_cookie("admin_session", path="/admin")
    assert cookie is not None
    after.set_cookie("admin_session", cookie.value, path="/admin")
    return after.get("/admin/session").status_code == 200


def test_an_altered_cookie_is_refused(client: FlaskClient) -> None:
    AdminSession(client)
    cookie = client.get_cookie("admin_session", path="/admin")
    assert cookie is not None
    client.set_cookie("admin_session", cookie.value.translate({ord("a"): "b", ord("b"): "a"}), path="/admin")
    assert client.get("/admin/session").status_code == 401


def test_guessing_the_key_is_limited(client: FlaskClient) -> None:
    for _ in range(admin_sessions.MAX_ATTEMPTS):
        assert client.post("/admin/session", json={"admin_api_key": "guess"}, headers=ORIGIN).status_code == 401
    response = client.post("/admin/session", json={"admin_api_key": ADMIN_KEY}, headers=ORIGIN)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "60")
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    response = client.post("/admin/session", json={"admin_api_key": ADMIN_KEY}, headers=ORIGIN, environ_base=elsewhere)
    assert response.status_code == 200


def test_a_successful_sign_in_does_not_count(client: FlaskClient) -> None:
    for _ in range(admin_sessions.MAX_ATTEMPTS + 1):
        AdminSession(client)


def test_the_page_is_static_and_allows_nothing_inline_and_no_other_hosts(client: FlaskClient) -> None:
    for path in ("/admin", "/admin/admin.js", "/admin/uPlot.iife.min.js"):
        response = client.get(path)
        assert response.status_code == 200
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
    assert client.get("/admin/").headers["Location"] == "../admin"
    assert client.get("/admin/LICENSE").status_code == 404


def test_a_server_without_an_admin_key_tells_how_to_get_the_page(make_client: MakeClient) -> None:
    response = make_client().get("/admin")
    assert response.status_code == 404
    assert "ADMIN_API_KEY" in response.get_json()["error"]["message"]


def test_the_page_can_be_disabled(tmp_path: Path) -> None:
    client = make(tmp_path, ADMIN_PAGE="false")
    for path in ("/admin", "/admin/admin.js", "/admin/api/overview", "/admin/session"):
        assert client.get(path).get_json()["error"]["code"] == "unknown_url"


def test_a_server_without_accounts_has_no_keys_to_show(tmp_path: Path) -> None:
    session = AdminSession(make(tmp_path, ACCOUNTS="off"))
    assert session.send("GET", "session").json["has_accounts"] is False
    response = session.send("GET", "api/accounts")
    assert (response.status_code, response.json["error"]["code"]) == (404, "unknown_url")
    assert session.send("GET", "api/organization/projects").status_code == 404
