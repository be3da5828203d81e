"""`GET /`: a page for browsers, a line of JSON for everything else."""

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
def test_a_program_gets_json(client: FlaskClient, accept: str | None) -> None:
    response = client.get("/", headers={"Accept": accept} if accept else {})
    summary = response.get_json()
    assert (summary["name"], summary["version"]) == ("openai-compat", __version__)
    for place in ("documentation", "openapi"):
        assert client.get(summary[place]).status_code == 200
    assert client.get(f"{summary['api']}/models").status_code == 200


@pytest.mark.parametrize("headers", [{}, BROWSER])
def test_a_cache_keeps_both_apart_and_asks_again(client: FlaskClient, headers: dict[str, str]) -> None:
    response = client.get("/", headers=headers)
    assert "Accept" in response.headers["Vary"]


@pytest.mark.parametrize("headers", [{}, BROWSER])
def test_head_has_the_headers_and_no_body(client: FlaskClient, headers: dict[str, str]) -> None:
    head, get = client.head("/", headers=headers), client.get("/", headers=headers)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.data))
    assert head.content_type == get.content_type


def test_another_method_is_refused_in_the_envelope(client: FlaskClient) -> None:
    response = client.post("/", json={})
    assert (response.status_code, response.get_json()["error"]["code"]) == (405, "method_not_allowed")


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(client: FlaskClient) -> None:
    for path in ("/", "/home/home.js"):
        policy = client.get(path, headers=BROWSER).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert not re.search(r"https?:|\*", policy)


def test_all_that_the_page_needs_is_there(client: FlaskClient) -> None:
    """Addresses are relative, so that the page works below a prefix that a proxy takes away."""
    found = re.findall(r'(?:src|href)="([^"]+)"', client.get("/", headers=BROWSER).text)
    assert {"home/home.css", "home/home.js", "docs"} <= set(found)
    for path in found:
        assert client.get(f"/{path}").status_code == 200, path


@pytest.mark.parametrize("name", sorted(home.ASSETS))
def test_its_files_are_served_and_not_sent_again(client: FlaskClient, name: str) -> None:
    response = client.get(f"/home/{name}")
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert response.mimetype == types[Path(name).suffix]
    again = client.get(f"/home/{name}", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["home.html", "home.py", "..%2Fhome.py", "nothing.js"])
def test_other_files_are_not(client: FlaskClient, name: str) -> None:
    response = client.get(f"/home/{name}")
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "unknown_url")


def test_it_can_be_turned_off(make_client: MakeClient) -> None:
    client = make_client(HOME_PAGE="false")
    for path in ("/", "/home/home.js"):
        assert client.get(path, headers=BROWSER).get_json()["error"]["code"] == "unknown_url"
