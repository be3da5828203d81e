"""The administration endpoints, as an administrator and a caller see them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat import create_app
from openai_compat.accounts import directory
from openai_compat.config import environment
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, answer_with
from tests.support.waiting import wait_until

ADMIN = {"Authorization": "Bearer admin-key-1"}
PROJECTS = "/v1/organization/projects"
MODELS = """
- {name: priced, kind: echo, price: {input: 1000, output: 1000}}
- {name: other, kind: echo, price: {input: 1000, output: 1000}}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "models.yaml").write_text(MODELS)
    client = make(folder, MODELS_FILE=str(folder / "models.yaml"))
    yield client
    client.application.extensions["openai_compat"].close()


@pytest.fixture(autouse=True)
def _changes_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "VERSION_SECONDS", 0.0)


def make(folder: Path, **settings: str) -> FlaskClient:
    environ = {"DATA_DIR": str(folder), "ADMIN_API_KEY": "admin-key-1", **settings}
    return create_app(environment.load(environ)).test_client()


def call(client: FlaskClient, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    response = client.open(path, method=method, json=body, headers=ADMIN)
    assert response.status_code == status, response.text
    return response.json


def new_project(client: FlaskClient, **values: Any) -> Any:
    return call(client, "POST", PROJECTS, {"name": "search", **values})


def new_key(client: FlaskClient, project: Any = None, **values: Any) -> Any:
    project = project or new_project(client)
    return call(client, "POST", f"{PROJECTS}/{project['id']}/api_keys", {"name": "ci", **values})


def path_of(key: Any) -> str:
    return f"{PROJECTS}/{key['project_id']}/api_keys/{key['id']}"


def chat(client: FlaskClient, secret: str, text: str = "Hello!", model: str = "priced", **values: Any) -> TestResponse:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 10, **values}
    return client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"})


def wait_for_records(client: FlaskClient) -> None:
    """Return once the usage of the calls so far is stored, which the background does within a second."""
    ledger = client.application.extensions["openai_compat"].accounts.ledger
    wait_until(lambda: not ledger.records(1), "the records are stored")


def test_a_key_is_created_used_and_revoked(client: FlaskClient) -> None:
    key = new_key(client, metadata={"team": "a"}, tags=["x"])
    assert key["value"].startswith("sk-oc-")
    assert chat(client, key["value"]).status_code == 200
    shown = call(client, "GET", path_of(key))
    assert "value" not in shown
    assert {**key, "value": None} == {**shown, "value": None}
    assert (shown["metadata"], shown["tags"], shown["source"]) == ({"team": "a"}, ["x"], "api")
    assert call(client, "DELETE", path_of(key))["deleted"] is True
    assert chat(client, key["value"]).status_code == 401
    call(client, "GET", path_of(key), status=404)


def test_the_secret_appears_in_no_other_answer(client: FlaskClient) -> None:
    key = new_key(client)
    listed = client.get(f"{PROJECTS}/{key['project_id']}/api_keys", headers=ADMIN)
    assert key["id"] in listed.text
    assert key["value"] not in listed.text
    assert key["redacted_value"] in listed.text


def test_an_answer_with_a_secret_is_kept_by_no_cache(client: FlaskClient) -> None:
    project = new_project(client)
    response = client.post(f"{PROJECTS}/{project['id']}/api_keys", json={"name": "a"}, headers=ADMIN)
    assert response.headers["cache-control"] == "no-store"


def test_a_rotated_key_keeps_its_old_secret_for_the_overlap(client: FlaskClient) -> None:
    key = new_key(client)
    rotated = call(client, "POST", f"{path_of(key)}/rotate", {"overlap_seconds": 1000})
    assert rotated["id"] == key["id"]
    assert chat(client, rotated["value"]).status_code == chat(client, key["value"]).status_code == 200
    last = call(client, "POST", f"{path_of(key)}/rotate", {})
    assert [chat(client, one["value"]).status_code for one in (key, rotated, last)] == [401, 401, 200]


def test_an_archived_project_refuses_its_keys_and_can_be_enabled_again(client: FlaskClient) -> None:
    project = new_project(client)
    key = new_key(client, project)
    assert call(client, "POST", f"{PROJECTS}/{project['id']}/archive")["status"] == "archived"
    assert chat(client, key["value"]).status_code == 401
    listed = {one["id"] for one in call(client, "GET", f"{PROJECTS}?limit=100")["data"]}
    everything = {one["id"] for one in call(client, "GET", f"{PROJECTS}?limit=100&include_archived=true")["data"]}
    assert project["id"] in everything - listed
    call(client, "POST", f"{PROJECTS}/{project['id']}", {"enabled": True})
    assert chat(client, key["value"]).status_code == 200


def test_an_expired_key_is_refused(client: FlaskClient) -> None:
    key = new_key(client, expires_at=int(time.time()) - 1)
    assert chat(client, key["value"]).status_code == 401
    call(client, "POST", path_of(key), {"expires_at": None})
    assert chat(client, key["value"]).status_code == 200


def test_a_policy_is_changed_as_a_whole_and_other_values_stay(client: FlaskClient) -> None:
    key = new_key(client, policy={"models": ["other"], "limits": {"requests_per_minute": 5}})
    refused = chat(client, key["value"])
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "model_not_found")
    changed = call(client, "POST", path_of(key), {"policy": {"models": ["pri*"]}})
    assert (changed["policy"]["models"], changed["policy"]["limits"], changed["name"]) == (["pri*"], {}, "ci")
    assert chat(client, key["value"]).status_code == 200


def test_lists_are_paged_in_the_order_of_creation(client: FlaskClient) -> None:
    project = new_project(client)
    created = [new_key(client, project, name=f"key {number}")["id"] for number in range(5)]
    path = f"{PROJECTS}/{project['id']}/api_keys"
    found: list[str] = []
    page = call(client, "GET", f"{path}?limit=2")
    while True:
        found += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        page = call(client, "GET", f"{path}?limit=2&after={page['last_id']}")
    assert found == created
    refused = call(client, "GET", f"{path}?after=key_1", status=400)
    assert refused["error"]["param"] == "after"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "a", "polcy": {}}, "polcy"),
        ({"name": "a", "policy": {"limits": {"rpm": 5}}}, "policy.limits.rpm"),
        ({"name": "a", "policy": {"budgets": [{"amount": "x"}]}}, "policy.budgets[0].amount"),
        ({"name": "a", "policy": {"budgets": [{"amount": 5, "every": "fortnight"}]}}, "policy.budgets[0].every"),
        ({"name": "a", "expires_at": -1}, "expires_at"),
        ({"name": "a", "metadata": {"k": 7}}, "metadata.k"),
        ({"name": "a", "tags": "x"}, "tags"),
    ],
)
def test_mistakes_are_named(client: FlaskClient, body: Any, param: str) -> None:
    assert call(client, "POST", PROJECTS, body, status=400)["error"]["param"] == param


def test_unknown_accounts_and_paths_are_a_404(client: FlaskClient) -> None:
    key = new_key(client)
    another = new_project(client)
    for path in (
        f"{PROJECTS}/proj_1",
        f"{PROJECTS}/proj_1/api_keys",
        f"{PROJECTS}/{another['id']}/api_keys/{key['id']}",
        f"{PROJECTS}/%00",
        "/v1/organization/users",
    ):
        call(client, "GET", path, status=404)
    call(client, "POST", f"{PROJECTS}/proj_1/api_keys", {"name": "a"}, status=404)


def test_neither_kind_of_key_can_do_what_the_other_can(client: FlaskClient) -> None:
    key = new_key(client)
    normal = {"Authorization": f"Bearer {key['value']}"}
    for headers in (normal, {}, {"Authorization": "Bearer admin-key-2"}, {"Authorization": "Basic admin-key-1"}):
        assert client.get(PROJECTS, headers=headers).status_code == 401
    for name in ("Authorization", "api-key"):
        value = "Bearer admin-key-1" if name == "Authorization" else "admin-key-1"
        assert client.get("/v1/models", headers={name: value}).status_code == 401
    assert "ADMIN_API_KEY" in chat(client, "admin-key-1").json["error"]["message"]


def test_the_administration_key_reaches_no_upstream_while_calls_need_no_key(
    tmp_path: Path, upstream: MockUpstream
) -> None:
    open_server = make(tmp_path, OPENAI_BASE_URL=upstream.base_url)
    before = len(upstream.requests())
    assert chat(open_server, "admin-key-1", model="gpt-4o").status_code == 401
    assert open_server.get("/v1/organization/users", headers=ADMIN).status_code == 404
    assert len(upstream.requests()) == before
    assert chat(open_server, "anything", model="mock-gpt-model").status_code == 200


def test_without_the_setting_a_hint_says_how_to_switch_them_on(tmp_path: Path) -> None:
    plain = create_app(environment.load({"DATA_DIR": str(tmp_path)})).test_client()
    refused = plain.get(PROJECTS, headers={"Authorization": "Bearer None"})
    assert refused.status_code == 404
    assert "Set ADMIN_API_KEY" in refused.json["error"]["message"]


def test_the_organization_limits_all_keys_together(tmp_path: Path) -> None:
    server = make(tmp_path)
    policy = {"limits": {"requests_per_day": 2}}
    assert call(server, "POST", "/v1/organization", {"name": "Acme", "policy": policy})["name"] == "Acme"
    keys = [new_key(server)["value"] for _ in range(3)]
    statuses = [chat(server, key, model="mock-gpt-model").status_code for key in keys]
    assert statuses == [200, 200, 429]
    (meter,) = call(server, "GET", "/v1/organization/meters")["data"]
    assert (meter["name"], meter["limit"], meter["used"], meter["remaining"]) == ("requests_per_day", 2, 2, 0)


def test_the_state_of_a_budget_is_shown_and_can_be_set(client: FlaskClient) -> None:
    policy = {"budgets": [{"amount": 0.2, "every": "month"}, {"amount": 1}], "limits": {"tokens_per_minute": 10_000}}
    key = new_key(client, policy=policy)
    usage = chat(client, key["value"]).json["usage"]
    cost = usage["total_tokens"] / 1000
    meters = {meter["name"]: meter for meter in call(client, "GET", f"{path_of(key)}/meters")["data"]}
    month, total = meters["budget:month:UTC"], meters["budget:total:UTC"]
    assert (month["kind"], month["limit"], month["used"], month["held"]) == ("money", 0.2, cost, 0)
    assert month["remaining"] == pytest.approx(0.2 - cost)
    assert 0 < month["resets_in_seconds"] <= 31 * 86_400
    assert total["resets_in_seconds"] is None
    assert meters["tokens_per_minute"]["used"] == usage["total_tokens"]
    refused = chat(client, key["value"], "a long text " * 100)
    assert refused.json["error"]["code"] == "insufficient_quota"
    changed = call(client, "POST", f"{path_of(key)}/meters", {"name": "budget:month:UTC", "used": 0.19})
    assert (changed["used"], changed["remaining"]) == (0.19, 0.01)
    assert chat(client, key["value"]).status_code == 429
    call(client, "POST", f"{path_of(key)}/meters", {"name": "budget:month:UTC", "used": 0})
    assert chat(client, key["value"]).status_code == 200


def test_the_meters_of_an_end_user_are_shown(client: FlaskClient) -> None:
    key = new_key(client, policy={"end_users": {"limits": {"requests_per_day": 1}}})
    assert chat(client, key["value"], user="alice").status_code == 200
    assert chat(client, key["value"], user="alice").status_code == 429
    (alice,) = call(client, "GET", f"{path_of(key)}/meters?end_user=alice")["data"]
    (bob,) = call(client, "GET", f"{path_of(key)}/meters?end_user=bob")["data"]
    assert (alice["used"], bob["used"]) == (1, 0)
    call(client, "POST", f"{path_of(key)}/meters?end_user=alice", {"name": "requests_per_day", "used": 0})
    assert chat(client, key["value"], user="alice").status_code == 200


def test_chat_pages_get_a_sentence_about_what_is_refused(client: FlaskClient) -> None:
    key = new_key(client, policy={"models": ["priced"], "budgets": [{"amount": 0.001}]})
    sentences = []
    for model, secret in (("priced", key["value"]), ("other", key["value"]), ("priced", "sk-oc-unknown")):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
        reply = client.post("/ask", json=body, headers={"Authorization": f"Bearer {secret}"})
        assert 400 <= reply.status_code < 500
        sentences.append(reply.json["content"])
    assert sentences == [
        "The budget for this chat is used up.",
        "This chat may not use the model that was asked for.",
        "This chat needs a valid API key.",
    ]


@pytest.mark.parametrize(("name", "used", "status"), [("budget:total:UTC", 1, 404), ("requests_per_day", 0.5, 400)])
def test_a_meter_that_cannot_be_set_is_an_error(client: FlaskClient, name: str, used: float, status: int) -> None:
    key = new_key(client, policy={"limits": {"requests_per_day": 1}})
    call(client, "POST", f"{path_of(key)}/meters", {"name": name, "used": used}, status=status)


def test_usage_and_costs_add_up_by_group(client: FlaskClient) -> None:
    project = new_project(client)
    first, second = new_key(client, project), new_key(client, project)
    answers = [chat(client, first["value"]), chat(client, first["value"], user="alice"), chat(client, second["value"])]
    answers.append(chat(client, second["value"], model="other"))
    tokens = [answer.json["usage"]["total_tokens"] for answer in answers]
    wait_for_records(client)
    query = f"start_time={int(time.time()) - 60}&project_ids[]={project['id']}&bucket_width=1h&limit=1"
    usage = call(client, "GET", f"/v1/organization/usage/completions?{query}&group_by=api_key_id&group_by=model")
    (bucket,) = (one for one in usage["data"] if one["results"])
    by_group = {(one["api_key_id"], one["model"]): one for one in bucket["results"]}
    assert by_group.keys() == {(first["id"], "priced"), (second["id"], "priced"), (second["id"], "other")}
    assert by_group[first["id"], "priced"]["num_model_requests"] == 2
    sums = [one["input_tokens"] + one["output_tokens"] for one in by_group.values()]
    assert sum(sums) == sum(tokens)
    costs = call(client, "GET", f"/v1/organization/costs?{query}")
    (total,) = (one for bucket in costs["data"] for one in bucket["results"])
    assert total["amount"] == {"value": sum(tokens) / 1000, "currency": "usd"}
    by_user = call(client, "GET", f"/v1/organization/usage/completions?{query}&group_by=user_id&user_ids=alice")
    (alice,) = (one for bucket in by_user["data"] for one in bucket["results"])
    assert (alice["user_id"], alice["num_model_requests"]) == ("alice", 1)
    embeddings = call(client, "GET", f"/v1/organization/usage/embeddings?{query}")
    assert not [one for bucket in embeddings["data"] for one in bucket["results"]]


def test_pages_of_usage_cover_the_time_without_gaps(client: FlaskClient) -> None:
    start = 1_767_225_600
    path = f"/v1/organization/usage/completions?start_time={start + 5}&end_time={start + 7 * 60 + 1}&bucket_width=1m"
    bounds: list[tuple[int, int]] = []
    page = call(client, "GET", f"{path}&limit=3")
    while True:
        bounds += [(bucket["start_time"], bucket["end_time"]) for bucket in page["data"]]
        if not page["has_more"]:
            break
        page = call(client, "GET", f"{path}&limit=3&page={page['next_page']}")
    assert bounds == [(start + 60 * number, start + 60 * (number + 1)) for number in range(8)]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_time"),
        ("start_time=x", "start_time"),
        ("start_time=5&end_time=5", "end_time"),
        ("start_time=5&bucket_width=2h", "bucket_width"),
        ("start_time=5&limit=32", "limit"),
        ("start_time=5&group_by=color", "group_by"),
        ("start_time=5&models=%00", "models"),
    ],
)
def test_mistakes_in_a_query_of_usage_are_named(client: FlaskClient, query: str, param: str) -> None:
    answer = call(client, "GET", f"/v1/organization/usage/completions?{query}", status=400)
    assert answer["error"]["param"] == param


def test_the_export_has_a_row_for_each_call(client: FlaskClient) -> None:
    project = new_project(client)
    key = new_key(client, project)
    ids = [chat(client, key["value"], user="=1+1").headers["x-request-id"] for _ in range(3)]
    wait_for_records(client)
    query = f"start_time={int(time.time()) - 60}&project_ids={project['id']}"
    exported = client.get(f"/v1/organization/usage/export?{query}", headers=ADMIN)
    assert exported.content_type == "text/csv; charset=utf-8"
    head, *lines = exported.text.splitlines()
    assert head.startswith("id,at,")
    assert [line.rpartition(",")[2] for line in lines] == ids
    assert all(",'=1+1," in line for line in lines), "a spreadsheet would compute it"
    as_json = client.get(f"/v1/organization/usage/export?{query}&format=jsonl", headers=ADMIN)
    assert [one["request_id"] for one in map(client.application.json.loads, as_json.text.splitlines())] == ids


@pytest.mark.parametrize("included", ["true", "false"])
def test_a_key_for_some_models_passes_no_call_for_others_through(tmp_path: Path, included: str) -> None:
    with MockUpstream() as upstream:
        settings = {"OPENAI_BASE_URL": upstream.base_url, "PASSTHROUGH": "all", "INCLUDE_DEFAULT_MODELS": included}
        client = make(tmp_path, **settings)
        secret = new_key(client, policy={"models": ["gpt-4o*"]})["value"]

        def send(path: str, **values: Any) -> tuple[int, Any]:
            answer = client.post(f"/v1/{path}", headers={"Authorization": f"Bearer {secret}"}, **values)
            return answer.status_code, answer.is_json and answer.json.get("error", {}).get("code")

        refused = (403, "model_not_found")
        assert send("images/generations", json={"model": "dall-e-3", "prompt": "a cat"}) == refused
        assert send("moderations?model=omni", json={"input": "a"}) == refused
        late = {"file": (BytesIO(b"a" * 200_000), "a.txt"), "model": "dall-e-3"}
        assert send("files", data=late, content_type="multipart/form-data") == refused
        assert send("images/generations", json={"model": "gpt-4o-image", "prompt": "a cat"}) != refused
        client.application.extensions["openai_compat"].close()


@pytest.mark.parametrize("name", ["requests_per_minute", "concurrent_requests"])
def test_a_limit_of_zero_says_nothing_of_tokens(client: FlaskClient, name: str) -> None:
    secret = new_key(client, policy={"limits": {name: 0}})["value"]
    refused = chat(client, secret)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert "Limit 0, Used 0, Requested 1." in refused.json["error"]["message"]
    assert "tokens" not in refused.json["error"]["message"]


def test_a_key_with_limits_reads_and_cancels_its_responses_at_an_upstream(tmp_path: Path) -> None:
    reply = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"id": "resp_1"}'
    with RawServer(answer_with(reply)) as upstream:
        client = make(tmp_path, OPENAI_BASE_URL=f"{upstream.url}/v1", PASSTHROUGH="all")

        def send(secret: str, method: str, path: str) -> int:
            headers = {"Authorization": f"Bearer {secret}"}
            return client.open(f"/v1/{path}", method=method, headers=headers).status_code

        calls = (
            ("GET", "responses/resp_1"),
            ("POST", "responses/resp_1/cancel"),
            ("GET", "responses/resp_1/input_items"),
            ("DELETE", "responses/resp_1"),
            ("POST", "conversations"),
        )
        limits = {"requests_per_minute": 2}
        policy = {"endpoints": ["responses"], "budgets": [{"amount": 1}], "limits": limits, "models": ["gpt-*"]}
        secret = new_key(client, policy=policy)["value"]
        assert [send(secret, *one) for one in calls] == [200] * 5
        assert send(secret, "GET", "responses/resp_1?model=o1") == 403
        assert send(secret, "GET", "files") == 403
        stranger = new_key(client, policy={"endpoints": ["chat"]})["value"]
        assert [send(stranger, *one) for one in calls] == [403] * 5


def test_calls_older_than_the_setting_are_deleted_and_their_sums_stay(tmp_path: Path) -> None:
    server = make(tmp_path, USAGE_TTL="3600")
    project = new_project(server)
    key = new_key(server, project)["value"]
    assert chat(server, key, model="mock-gpt-model").status_code == 200
    wait_for_records(server)
    state = server.application.extensions["openai_compat"]
    query = f"start_time={int(time.time()) - 9 * 86_400}&project_ids={project['id']}"
    export = f"/v1/organization/usage/export?{query}&format=jsonl"
    (kept,) = map(server.application.json.loads, server.get(export, headers=ADMIN).text.splitlines())
    old = {**kept, "id": "old", "at": kept["at"] - 7300, "price": None}
    state.storage.usage.add([old])
    state.accounts.bookkeeper._next_deletion = 0.0
    wait_until(lambda: server.get(export, headers=ADMIN).text.count("\n") == 1, "the old call is deleted")
    usage = call(server, "GET", f"/v1/organization/usage/completions?{query}&limit=31")
    results = [one for bucket in usage["data"] for one in bucket["results"]]
    assert sum(one["num_model_requests"] for one in results) == 2
    state.close()


def test_looking_at_the_organization_makes_no_call_need_a_key(tmp_path: Path) -> None:
    server = make(tmp_path)
    assert call(server, "GET", "/v1/organization")["id"] == "org-default"
    assert call(server, "GET", PROJECTS)["data"] == []
    assert chat(server, "anything", model="mock-gpt-model").status_code == 200
    new_key(server)
    assert chat(server, "anything", model="mock-gpt-model").status_code == 401


@pytest.mark.parametrize("form", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"])
def test_a_key_sees_the_models_that_it_may_use(client: FlaskClient, form: dict[str, str]) -> None:
    secret = new_key(client, policy={"models": ["pri*"]})["value"]
    headers = {"Authorization": f"Bearer {secret}", **form}
    listed = client.get("/v1/models", headers=headers)
    assert listed.json is not None
    assert [model["id"] for model in listed.json["data"]] == ["priced"]
    assert client.get("/v1/models/priced", headers=headers).status_code == 200
    assert client.get("/v1/models/other", headers=headers).status_code == 404
