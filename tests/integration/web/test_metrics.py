"""`GET /metrics` in one process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

ADMIN = {"Authorization": "Bearer admin-key"}
CHAT = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    return make_client(ADMIN_API_KEY="admin-key")


def scrape(client: FlaskClient) -> str:
    return client.get("/metrics", headers=ADMIN).get_data(as_text=True)


def stream_to_its_end(client: FlaskClient, **changes: Any) -> None:
    with client.post("/v1/chat/completions", json={**CHAT, **changes}) as response:
        response.get_data()


def value_of(text: str, series: str) -> float | None:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


def code_of(response: TestResponse) -> tuple[int, str]:
    assert response.json is not None
    return response.status_code, response.json["error"]["code"]


def test_the_metrics_need_the_admin_key(client: FlaskClient) -> None:
    assert code_of(client.get("/metrics")) == (401, "invalid_api_key")
    assert code_of(client.get("/metrics", headers={"Authorization": "Bearer other"})) == (401, "invalid_api_key")
    assert client.get("/metrics", headers=ADMIN).status_code == 200


def test_without_an_admin_key_there_are_no_metrics(make_client: MakeClient) -> None:
    response = make_client().get("/metrics")
    assert code_of(response) == (404, "unknown_url")
    assert "METRICS_PORT" in response.get_data(as_text=True)


def test_the_metrics_may_have_a_port_of_their_own_with_nothing_else(make_client: MakeClient) -> None:
    client = make_client(METRICS_PORT="9400", ADMIN_API_KEY="admin-key", ALLOWED_HOSTS="api.example.com")
    own = {"base_url": "http://10.0.0.7:9400"}
    assert client.get("/metrics", **own).status_code == 200
    for path in ("/", "/healthz", "/v1/models", "/v1/organization/projects"):
        assert code_of(client.get(path, headers=ADMIN, **own)) == (404, "unknown_url"), path
    assert code_of(client.post("/v1/chat/completions", json=CHAT, **own)) == (404, "unknown_url")
    main = {"base_url": "http://api.example.com:8000"}
    assert code_of(client.get("/metrics", headers=ADMIN, **main)) == (404, "unknown_url")
    assert client.get("/v1/models", **main).status_code == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
    ids=["none", "any", "Prometheus"],
)
def test_the_format_is_the_one_that_the_client_prefers(client: FlaskClient, accept: str, content_type: str) -> None:
    response = client.get("/metrics", headers={**ADMIN, "Accept": accept})
    assert response.headers["content-type"] == content_type
    assert response.get_data(as_text=True).endswith("# EOF\n") is content_type.startswith("application")


def test_calls_are_counted_with_what_they_used(client: FlaskClient) -> None:
    for stream in (False, True):
        stream_to_its_end(client, stream=stream)
    client.post("/v1/chat/completions", json={**CHAT, "model": "guess"})
    text = scrape(client)
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="echo",gen_ai_request_model="mock-gpt-model"'
    requests = "openai_compat_requests_total"
    assert value_of(text, f'{requests}{{endpoint="chat/completions",model="mock-gpt-model",status="200"}}') == 2
    refused = f'{requests}{{endpoint="chat/completions",status="404",error_type="model_not_found"}}'
    assert value_of(text, refused) == 1
    assert value_of(text, f"gen_ai_server_request_duration_seconds_count{{{labels}}}") == 2
    assert value_of(text, f"gen_ai_server_time_to_first_token_seconds_count{{{labels}}}") == 1
    assert value_of(text, 'openai_compat_streams_total{model="mock-gpt-model",outcome="complete"}') == 1
    assert value_of(text, "openai_compat_streams_open") == 0
    assert value_of(text, "openai_compat_requests_in_flight") == 1, "the scrape itself"


@pytest.mark.parametrize("fault", ["fault-cut", "fault-error-in-stream"])
def test_a_stream_that_failed_midway_is_an_error(make_client: MakeClient, upstream: MockUpstream, fault: str) -> None:
    """The second one is passed on as the upstream's own event."""
    client = make_client(ADMIN_API_KEY="admin-key", OPENAI_BASE_URL=upstream.base_url)
    stream_to_its_end(client, model=fault, stream=True)
    text = scrape(client)
    assert value_of(text, 'openai_compat_streams_total{model="other",outcome="cut"}') == 1
    assert re.search(r'openai_compat_requests_total\{.*status="200",error_type="\w+"\} 1', text)


def test_connections_to_upstreams_are_counted(make_client: MakeClient, upstream: MockUpstream) -> None:
    client = make_client(ADMIN_API_KEY="admin-key", OPENAI_BASE_URL=upstream.base_url)
    for _ in range(3):
        client.post("/v1/chat/completions", json={**CHAT, "model": "mock-model"})
    text = scrape(client)
    assert value_of(text, 'openai_compat_upstream_connections_total{kind="new"}') == 1
    assert value_of(text, 'openai_compat_upstream_connections_total{kind="reused"}') == 2
    assert value_of(text, "openai_compat_upstream_connections_idle") == 1
    assert value_of(text, 'openai_compat_upstream_attempts_total{target="other"}') == 3


def test_a_background_response_is_counted_once_with_its_tokens(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(ADMIN_API_KEY="admin-key", DATA_DIR=str(tmp_path))
    body = {"model": "mock-gpt-model", "input": "one two three", "background": True}
    assert client.post("/v1/responses", json=body).status_code == 200
    call = 'openai_compat_requests_total{endpoint="responses",model="mock-gpt-model",status="200"}'
    wait_until(lambda: value_of(scrape(client), call), "the response has ended")
    text = scrape(client)
    assert value_of(text, call) == 1
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="echo",gen_ai_request_model="mock-gpt-model"'
    for kind in ("input", "output"):
        assert value_of(text, f'gen_ai_client_token_usage_sum{{gen_ai_token_type="{kind}",{labels}}}') == 3
