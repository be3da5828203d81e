"""What the admin page shows of calls and models, through its endpoints."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat import create_app
from openai_compat.config import environment
from openai_compat.core.errors import StorageUnavailableError
from openai_compat.storage import Storage
from tests.support.admin_session import ADMIN_KEY, ORIGIN, AdminSession
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

MODELS = """
- {{name: priced, kind: echo, price: {{input: 1000, output: 1000}}}}
- {{name: down, kind: openai, base_url: "http://127.0.0.1:{port}/v1"}}
- {{name: lost, kind: anthropic, base_url: "http://127.0.0.1:{port}/v1", api_key_env: ANTHROPIC_API_KEY}}
- {{name: cut, kind: openai, base_url: "{upstream}", upstream_model: fault-cut}}
- {{name: assistant, targets: [{{model: down}}], fallbacks: [priced], retries: 0, cooldown: 60}}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[FlaskClient]:
    folder = tmp_path_factory.mktemp("data")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (folder / "models.yaml").write_text(MODELS.format(port=port, upstream=upstream.base_url))
    settings = {
        "DATA_DIR": str(folder), "ADMIN_API_KEY": ADMIN_KEY, "MODELS_FILE": str(folder / "models.yaml"),
        "OPENAI_API_KEY": "sk-upstream", "OPENAI_BASE_URL": upstream.base_url, "CALL_LOG_BODIES": "true",
        "ANTHROPIC_API_KEY": "sk-none",
    }  # fmt: skip
    client = create_app(environment.load(settings)).test_client()
    yield client
    client.application.extensions["openai_compat"].close()


@pytest.fixture
def admin(client: FlaskClient) -> AdminSession:
    return AdminSession(client)


def flush(client: FlaskClient) -> None:
    client.application.extensions["openai_compat"].recorder.flush()


def chat(client: FlaskClient, model: str, **values: Any) -> TestResponse:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **values}
    response = client.post("/v1/chat/completions", json=body)
    _ = response.data
    response.close()  # a stream ends then
    return response


def newest(admin: AdminSession) -> Any:
    """Return the newest call of the log in detail."""
    flush(admin.client)
    (call,) = admin.get("calls?limit=1")["data"]
    return admin.get(f"calls/{call['id']}")


def test_a_call_through_a_failover_shows_its_attempts(admin: AdminSession) -> None:
    chat(admin.client, "assistant")
    call = newest(admin)
    assert (call["model"], call["target"], call["status"]) == ("assistant", "priced", 200)
    down, priced = call["attempts"]
    assert (down["target"], down["error"], down["first_byte_ms"]) == ("down", "upstream_unreachable", None)
    assert (priced["target"], priced["error"]) == ("priced", None)
    assert down["start_ms"] <= down["end_ms"] <= priced["start_ms"] <= priced["first_byte_ms"] <= priced["end_ms"]
    assert call["cost"] == pytest.approx((call["input_tokens"] + call["output_tokens"]) / 1000)


def test_an_error_after_the_first_byte_of_a_stream_is_shown(admin: AdminSession) -> None:
    assert chat(admin.client, "cut", stream=True).status_code == 200
    call = newest(admin)
    assert (call["status"], call["is_failed"], call["is_streamed"]) == (200, True, True)
    assert call["error"].startswith("upstream_")
    assert [attempt["error"] for attempt in call["attempts"]] == [call["error"]]


def test_a_background_response_has_its_own_first_token_and_error(admin: AdminSession, client: FlaskClient) -> None:
    def respond(model: str) -> Any:
        body = {"model": model, "input": "hi", "background": True}
        assert client.post("/v1/responses", json=body).status_code == 200
        wait_until(lambda: state.background.is_idle, "the response has ended")
        return newest(admin)

    state = client.application.extensions["openai_compat"]
    call, failed = respond("priced"), respond("lost")
    assert call["first_token_ms"] >= call["attempts"][0]["start_ms"]
    assert (call["status"], call["error"]) == (200, None)
    assert (failed["status"], failed["error"], failed["first_token_ms"]) == (500, "upstream_unreachable", None)


def test_rejected_calls_are_shown_with_their_error(admin: AdminSession) -> None:
    admin.client.post("/v1/chat/completions", json={"model": "priced", "messages": "none"})
    call = newest(admin)
    assert (call["operation"], call["status"], call["error"]) == ("chat/completions", 400, "invalid_type")


@pytest.mark.parametrize(
    ("body", "error"),
    [({"model": "down", "messages": [{"role": "user", "content": "hi"}]}, "upstream_unreachable"),
     ({"messages": "none"}, "invalid_type")],
)  # fmt: skip
def test_failures_of_ask_are_shown_with_their_error(admin: AdminSession, body: dict[str, Any], error: str) -> None:
    admin.client.post("/ask", json=body)
    call = newest(admin)
    assert (call["operation"], call["error"], call["is_failed"]) == ("chat/completions", error, True)


def test_other_protocols_and_the_passthrough_are_shown(admin: AdminSession) -> None:
    messages = [{"role": "user", "content": "Hello!"}]
    admin.client.post("/v1/messages", json={"model": "priced", "messages": messages, "max_tokens": 5})
    assert newest(admin)["operation"] == "messages"
    admin.client.post("/v1/responses", json={"model": "priced", "input": "Hello!", "store": False})
    assert newest(admin)["operation"] == "responses"
    admin.client.get("/v1/files").close()
    assert newest(admin)["operation"] == "passthrough"


def test_the_page_itself_and_health_checks_are_not_shown(admin: AdminSession) -> None:
    before = newest(admin)["id"]
    for path in ("/healthz", "/v1/models", "/admin", "/admin/api/overview", "/"):
        admin.client.get(path)
    assert newest(admin)["id"] == before


def test_bodies_are_kept_with_secrets_masked(admin: AdminSession) -> None:
    text = "remember sk-abcdefgh12345"
    chat(admin.client, "priced", messages=[{"role": "user", "content": text}])
    bodies = newest(admin)["bodies"]
    assert '"remember ***"' in bodies["request"]
    assert "sk-abcdefgh" not in bodies["answer"]
    chat(admin.client, "priced", stream=True)
    assert newest(admin)["bodies"]["answer"].startswith('data: {"id":')


def test_totals_are_those_of_the_calls(admin: AdminSession) -> None:
    flush(admin.client)
    before = admin.get("overview?span=day")["totals"]
    for _ in range(3):
        chat(admin.client, "priced")
    chat(admin.client, "down")
    call = newest(admin)
    report = admin.get("overview?span=day")
    after = report["totals"]
    assert call["status"] == 502
    assert (after["calls"] - before["calls"], after["errors"] - before["errors"]) == (4, 1)
    assert after["output_tokens"] > before["output_tokens"]
    assert sum(report["series"]["calls"]) == after["calls"]
    assert sum(model["calls"] for model in report["models"]) == after["calls"]
    for span, buckets in (("hour", 60), ("day", 96), ("month", 120)):
        assert len(admin.get(f"overview?span={span}")["series"]["time"]) == buckets


def test_streams_count_while_they_are_open(admin: AdminSession) -> None:
    body = {"model": "priced", "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
    with admin.client.post("/v1/chat/completions", json=body):
        assert admin.get("overview")["streams"] == 1
    assert admin.get("overview")["streams"] == 0


def test_calls_that_are_missing_in_the_log_are_counted_for_all_workers(admin: AdminSession) -> None:
    state = admin.client.application.extensions["openai_compat"]
    before = admin.get("overview")["dropped"]
    state.recorder.dropped += 2
    assert admin.get("overview")["dropped"] == before + 2
    assert state.metrics.read()["openai_compat_call_log_dropped_total"][()] == [before + 2]


def test_targets_have_the_state_of_their_circuit(admin: AdminSession) -> None:
    chat(admin.client, "assistant")
    flush(admin.client)
    models = {model["model"]: model for model in admin.get("models?span=day")["models"]}
    down, priced = models["assistant"]["targets"]
    assert (down["circuit"]["state"], down["role"]) == ("open", "")
    assert (priced["circuit"]["state"], priced["role"], priced["share"]) == ("closed", "fallback", 1.0)
    assert models["priced"]["targets"][0]["circuit"] is None


def test_a_test_of_a_model_is_a_call_like_any_other(admin: AdminSession) -> None:
    answer = admin.send("POST", "api/models/test", {"model": "assistant"})
    assert answer.headers["x-openai-compat-upstream"] == "priced"
    assert answer.json["choices"][0]["message"]["content"]
    assert newest(admin)["model"] == "assistant"
    alone = admin.send("POST", "api/models/test", {"model": "assistant", "target": "down"})
    assert (alone.status_code, alone.json["error"]["code"]) == (502, "upstream_unreachable")


def test_a_test_of_a_model_does_not_send_the_credential_of_a_proxy_to_the_upstream(
    admin: AdminSession, upstream: MockUpstream
) -> None:
    headers = {**ORIGIN, "X-CSRF-Token": admin.token, "Authorization": "Basic b3BzOnNlY3JldA=="}
    admin.client.post("/admin/api/models/test", json={"model": "cut"}, headers=headers)
    assert "fault-cut" in str(upstream.requests()[-1])
    assert "b3BzOnNlY3JldA==" not in str(upstream.requests()[-1])


def test_a_test_of_an_unknown_target_is_refused(admin: AdminSession) -> None:
    body = {"model": "assistant", "target": "elsewhere"}
    assert admin.send("POST", "api/models/test", body).json["error"]["code"] == "model_not_found"


def test_filters_and_cursors_of_the_list(admin: AdminSession) -> None:
    for model in ("priced", "down", "priced"):
        chat(admin.client, model)
    flush(admin.client)
    failed = admin.get("calls?status=failed&limit=1")
    assert failed["data"][0]["model"] == "down"
    assert failed["has_more"]
    first, second = admin.get("calls?model=priced&limit=2")["data"]
    older = admin.get(f"calls?model=priced&limit=1&before={first['number']}")["data"]
    assert [call["id"] for call in older] == [second["id"]]
    assert admin.get(f"calls?after={first['number']}")["data"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1000", "before=-1", "before=x", "status=other", "after=99999999999999999999"]
)
def test_invalid_queries_get_an_error(admin: AdminSession, query: str) -> None:
    response = admin.send("GET", f"api/calls?{query}")
    assert (response.status_code, response.json["error"]["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize("id", ["call_unknown", "%00", "x" * 600])
def test_an_unknown_call_is_an_error(admin: AdminSession, id: str) -> None:
    assert admin.send("GET", f"api/calls/{id}").status_code == 404


def test_a_database_that_is_away_is_an_error_of_the_page_and_of_no_call(
    admin: AdminSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_storage: Storage) -> None:
        raise StorageUnavailableError

    flush(admin.client)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_open", fail)
        assert chat(admin.client, "priced", user="away").status_code == 200
        response = admin.send("GET", "api/overview")
        assert (response.status_code, response.json["error"]["code"]) == (503, "storage_unavailable")
    assert newest(admin)["model"] == "priced"
