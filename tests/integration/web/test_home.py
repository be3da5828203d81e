"""`GET /`, which returns a page to browsers and JSON to all other clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from openai_compat.core.version import __version__
from openai_compat.web.routes import home
from tests.integration.web.conftest import MakeClient

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}


def test_a_browser_gets_the_page(client: FlaskClient) -> None:
    response = client.get("/", headers=BROWSER)
    assert response.content_type == "text/html; charset=utf-8"
    assert "<title>openai-compat</title>" in response.text


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/plain, */*", "image/png"])
def test_other_clients_get_json(client: FlaskClient, accept: str | None) -> None:
    response = client.get("/", headers={"Accept": accept} if accept else {})
    summary = response.get_json()
    assert (summary["name"], summary["version"]) == ("openai-compat", __version__)
    for link in ("documentation", "openapi"):
        assert client.get(summary[link]).status_code == 200
    assert client.get(f"{summary['api']}/models").status_code == 200


@pytest.mark.parametrize("headers", [{}, BROWSER])
def test_both_representations_vary_by_accept(client: FlaskClient, headers: dict[str, str]) -> None:
    response = client.get("/", headers=headers)
    assert "Accept" in response.headers["Vary"]


@pytest.mark.parametrize("headers", [{}, BROWSER])
def test_head_returns_the_headers_without_a_body(client: FlaskClient, headers: dict[str, str]) -> None:
    head, get = client.head("/", headers=headers), client.get("/", headers=headers)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.data))
    assert head.content_type == get.content_type


def test_another_method_is_rejected_in_the_error_envelope(client: FlaskClient) -> None:
    response = client.post("/", json={})
    assert (response.status_code, response.get_json()["error"]["code"]) == (405, "method_not_allowed")


def test_the_content_security_policy_allows_nothing_inline_and_no_other_hosts(client: FlaskClient) -> None:
    for path in ("/", "/home/home.js"):
        policy = client.get(path, headers=BROWSER).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert not re.search(r"https?:|\*", policy)


def test_every_file_of_the_page_is_served(client: FlaskClient) -> None:
    """URLs are relative, so that the page works behind a proxy that strips a path prefix."""
    found = re.findall(r'(?:src|href)="([^"]+)"', client.get("/", headers=BROWSER).text)
    assert {"home/home.css", "home/home.js", "docs"} <= set(found)
    for path in found:
        assert client.get(f"/{path}").status_code == 200, path


@pytest.mark.parametrize("name", sorted(home.ASSETS))
def test_files_are_served_with_an_etag_and_not_sent_again(client: FlaskClient, name: str) -> None:
    response = client.get(f"/home/{name}")
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert response.mimetype == types[Path(name).suffix]
    again = client.get(f"/home/{name}", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["home.html", "home.py", "..%2Fhome.py", "nothing.js"])
def test_other_files_are_not_served(client: FlaskClient, name: str) -> None:
    response = client.get(f"/home/{name}")
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "unknown_url")


def test_the_home_page_can_be_disabled(make_client: MakeClient) -> None:
    client = make_client(HOME_PAGE="false")
    for path in ("/", "/home/home.js"):
        assert client.get(path, headers=BROWSER).get_json()["error"]["code"] == "unknown_url"
