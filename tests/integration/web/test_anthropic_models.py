"""The list of models in Anthropic's form, which the header `anthropic-version` asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream

VERSION = {"anthropic-version": "2023-06-01"}
NAMES = ["claude-a", "claude-b", "team/c", "d", "e"]


@pytest.fixture
def client(make_client: MakeClient, tmp_path: Path) -> FlaskClient:
    """Return a client of a server with five models."""
    rows: list[dict[str, Any]] = [{"name": name, "kind": "echo"} for name in NAMES]
    rows[1] |= {"created": 1_760_000_000, "context_window": 200_000}
    (tmp_path / "models.json").write_text(json.dumps(rows))
    return make_client(MODELS_FILE=str(tmp_path / "models.json"))


def page(client: FlaskClient, query: str = "", root: str = "/v1") -> tuple[list[str], bool]:
    """Return the ids of a page, and whether more follow. The page's own first and last id must agree."""
    answer = client.get(f"{root}/models{query}", headers=VERSION)
    assert answer.status_code == 200
    content = answer.get_json()
    ids = [model["id"] for model in content["data"]]
    assert (content["first_id"], content["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, content["has_more"]


def test_the_version_header_decides_the_form(client: FlaskClient) -> None:
    ours = client.get("/v1/models", headers=VERSION)
    assert ours.get_json()["data"][1] == {
        "type": "model",
        "id": "claude-b",
        "display_name": "claude-b",
        "created_at": "2025-10-09T08:53:20Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
    }
    theirs = client.get("/v1/models", headers={"x-api-key": "sk-ant-any"})
    assert theirs.get_json()["object"] == "list"
    assert "anthropic-version" in theirs.headers["vary"]
    assert ours.headers["request-id"].startswith("req_")
    assert "request-id" not in theirs.headers


@pytest.mark.parametrize("root", ["/v1", "/anthropic/v1", "/anthropic"])
def test_pages_go_forward_and_backward(client: FlaskClient, root: str) -> None:
    assert page(client, "", root) == (NAMES, False)
    assert page(client, "?limit=2", root) == (NAMES[:2], True)
    assert page(client, "?limit=2&after_id=claude-b", root) == (NAMES[2:4], True)
    assert page(client, "?limit=2&after_id=team/c", root) == (NAMES[3:], False)
    assert page(client, "?limit=2&before_id=e", root) == (NAMES[2:4], True)
    assert page(client, "?limit=2&before_id=team/c", root) == (NAMES[:2], False)
    assert page(client, "?after_id=claude-a&before_id=e", root) == (NAMES[1:4], False)
    assert page(client, "?after_id=e", root) == ([], False)


def test_one_model_has_its_context_window(client: FlaskClient) -> None:
    model = client.get("/v1/models/claude-b", headers=VERSION).get_json()
    assert (model["type"], model["id"], model["max_input_tokens"]) == ("model", "claude-b", 200_000)
    unknown_age = client.get("/v1/models/team/c", headers=VERSION).get_json()
    assert (unknown_age["id"], unknown_age["created_at"]) == ("team/c", "1970-01-01T00:00:00Z")
    assert client.get("/v1/models/nope", headers=VERSION).status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "after_id=nope", "before_id=nope"])
def test_a_page_that_does_not_exist_is_refused(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/v1/models?{query}", headers=VERSION)
    assert answer.status_code == 400
    assert answer.get_json()["error"]["type"] == "invalid_request_error"
    assert query.split("=")[0] in answer.get_json()["error"]["message"]


def test_models_of_the_upstream_have_either_form(make_client: MakeClient, upstream: MockUpstream) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url)
    theirs, ours = client.get("/v1/models", headers=VERSION).get_json(), client.get("/v1/models").get_json()
    assert [model["id"] for model in theirs["data"]] == [model["id"] for model in ours["data"][:20]]
    assert {model["type"] for model in theirs["data"]} == {"model"}
    assert {model["object"] for model in ours["data"]} == {"model"}
    first = theirs["data"][0]
    assert client.get(f"/v1/models/{first['id']}", headers=VERSION).get_json() == first
    assert client.get("/v1/models/nope", headers=VERSION).status_code == 404
