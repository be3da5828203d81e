"""Request id, access-log line and headers of every request, the health checks and the model endpoints."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream
from tests.support.recording_api import RecordingAPI

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def test_every_response_has_a_request_id(client: FlaskClient) -> None:
    ids = {client.get(path).headers["x-request-id"] for path in ("/v1/models", "/healthz", "/nothing")}
    assert len(ids) == 3
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in ids)


def test_a_valid_request_id_of_the_client_is_kept(client: FlaskClient) -> None:
    assert client.get("/v1/models", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/v1/models", headers={"X-Request-Id": 'a" b\x7f'}).headers["x-request-id"].startswith("req_")


def test_the_clients_request_id_has_priority_over_the_upstreams(
    make_client: MakeClient, upstream: MockUpstream
) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url)
    own = client.post("/v1/chat/completions", json={**CHAT, "model": "m"}, headers={"X-Request-Id": "mine-2"})
    assert own.headers["x-request-id"] == "mine-2"
    assert upstream.requests()[-1]["headers"]["x-request-id"] == "mine-2"


def test_range_and_conditional_headers_are_forwarded_for_downloads_only(
    make_client: MakeClient, upstream: MockUpstream
) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url)
    sent = {"Range": "bytes=0-1", "If-None-Match": '"a"', "If-Modified-Since": "Fri, 20 Nov 2026 00:00:00 GMT"}
    client.post("/v1/chat/completions", json={**CHAT, "model": "m"}, headers=sent)
    client.get("/v1/models", headers=sent)
    client.get("/v1/files/x", headers=sent)
    chat, models, file = ({name.lower() for name in sent} & seen["headers"].keys() for seen in upstream.requests()[-3:])
    assert (chat, models, len(file)) == (set(), set(), 3)


def test_responses_have_openais_headers(client: FlaskClient) -> None:
    headers = client.post("/v1/chat/completions", json=CHAT).headers
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-processing-ms"].isdigit()


class RecordingHandler(logging.Handler):
    """Handler that keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("stream", [False, True])
def test_each_request_has_one_access_log_line(client: FlaskClient, *, stream: bool) -> None:
    logger, handler = logging.getLogger("openai_compat.web.request_context"), RecordingHandler()
    logger.addHandler(handler)
    client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, buffered=True)
    logger.removeHandler(handler)
    (record,) = handler.records
    log_fields = record.fields  # type: ignore[attr-defined]
    assert record.getMessage() == "POST /v1/chat/completions"
    assert (log_fields["status"], log_fields["model"], log_fields["kind"]) == (200, "mock-gpt-model", "echo")
    assert log_fields["prompt_tokens"] > 0
    assert log_fields["completion_tokens"] > 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_log_line_has_the_request_id(
    make_client: MakeClient, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    client = make_client(LOG_FORMAT=log_format)
    client.post("/v1/chat/completions?x=\n", json={"messages": 3}, headers={"X-Request-Id": "mine-3"})
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) >= 2
    assert all("mine-3" in line for line in lines)
    if log_format == "json":
        assert {json.loads(line)["request_id"] for line in lines} == {"mine-3"}


def test_bodies_are_logged_only_if_configured_and_without_secrets(
    make_client: MakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {**CHAT, "api_key": "very-secret", "metadata": {"note": "sk-abcdefghijkl"}}
    make_client().post("/v1/chat/completions", json=body)
    assert "hi" not in capsys.readouterr().err.replace("this", "")
    make_client(LOG_REQUEST_BODIES="true").post("/v1/chat/completions", json=body)
    logged = capsys.readouterr().err
    assert '"content": "hi"' in logged
    assert "very-secret" not in logged
    assert "sk-abc" not in logged


def test_health_checks_are_not_logged(client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.get("/healthz")
    assert "/healthz" not in capsys.readouterr().err


def test_the_health_checks(client: FlaskClient) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json() == {"status": "ready"}
    health = client.get("/api/v1/healthcheck").get_json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", health.pop("timestamp"))
    assert health == {"status": "healthy", "service": "openai-compatible-api"}


def test_readiness_does_not_depend_on_the_upstream(make_client: MakeClient) -> None:
    client = make_client(OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize("prefix", ["/v1", "", "/api/v1", "/openai/v1", "/openai"])
def test_models_are_listed_under_every_prefix(client: FlaskClient, prefix: str) -> None:
    listed = client.get(f"{prefix}/models").get_json()
    assert listed["object"] == "list"
    assert listed["data"] == [
        {"id": "mock-gpt-model", "object": "model", "created": 0, "owned_by": "mock", "permission": []}
    ]
    described = client.get(f"{prefix}/models/mock-gpt-model").get_json()
    assert described == {**listed["data"][0], "capabilities": ["chat", "completions", "embeddings"]}


def test_the_list_includes_the_upstreams_models(make_client: MakeClient, upstream: MockUpstream) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url, EXTERNAL_CHAT_URL="http://127.0.0.1:9/")
    ids = [model["id"] for model in client.get("/v1/models").get_json()["data"]]
    assert ids[0] == "external-chat"
    assert {"mock-model", "mock/model-with-slash"} <= set(ids)
    assert client.get("/v1/models/mock/model-with-slash").get_json()["id"] == "mock/model-with-slash"
    assert client.get("/v1/models/nope").status_code == 404


def test_the_list_is_cached(make_client: MakeClient, upstream: MockUpstream) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url)
    upstream.reset()
    lists = [client.get("/v1/models").get_json() for _ in range(3)]
    assert lists[0] == lists[1] == lists[2]
    assert upstream.stats()["requests_total"] == 1


def test_the_list_omits_the_models_of_an_upstream_that_is_down(make_client: MakeClient) -> None:
    client = make_client(OPENAI_BASE_URL="http://127.0.0.1:9/v1", EXTERNAL_CHAT_URL="http://127.0.0.1:9/")
    assert [model["id"] for model in client.get("/v1/models").get_json()["data"]] == ["external-chat"]


def test_models_outside_the_allow_list_are_hidden_and_rejected(make_client: MakeClient, upstream: MockUpstream) -> None:
    client = make_client(OPENAI_BASE_URL=upstream.base_url, MODEL_ALLOW_LIST="mock-model")
    assert [model["id"] for model in client.get("/v1/models").get_json()["data"]] == ["mock-model"]
    for path in ("/v1/models/mock-embedding", "/v1/models/nope"):
        assert client.get(path).get_json()["error"]["code"] == "model_not_found"
    refused = client.post("/v1/chat/completions", json={**CHAT, "model": "mock-embedding"})
    assert refused.status_code == 404


def test_the_allow_list_is_the_list_of_an_upstream_without_one(make_client: MakeClient) -> None:
    with RecordingAPI("Hello!") as api:  # which answers 501 in HTML to every GET
        client = make_client(OPENAI_BASE_URL=api.url, MODEL_ALLOW_LIST="x,y/z")
        listed = client.get("/v1/models")
        assert listed.status_code == 200
        assert [(model["id"], model["object"], model["created"]) for model in listed.get_json()["data"]] == [
            ("x", "model", 0),
            ("y/z", "model", 0),
        ]
        assert client.get("/v1/models/y/z").get_json()["id"] == "y/z"
        assert client.get("/v1/models/w").status_code == 404
        answer = client.post("/v1/chat/completions", json={**CHAT, "model": "x"}).get_json()
        assert answer["choices"][0]["message"]["content"] == "Hello!"
        assert make_client(OPENAI_BASE_URL=api.url).get("/v1/models").status_code >= 400


def test_stream_options_without_a_stream_are_judged_by_the_upstream(make_client: MakeClient) -> None:
    options = {"stream_options": {"include_usage": True}}
    with RecordingAPI("Hello!") as api:
        client = make_client(OPENAI_BASE_URL=api.url)
        assert client.post("/v1/chat/completions", json={**CHAT, "model": "m", **options}).status_code == 200
        assert api.bodies[-1] == {**CHAT, "model": "m", **options}


@pytest.mark.parametrize("body", [CHAT, {"prompt": "hi"}])
@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_the_echo_model_refuses_stream_options_without_a_stream(
    client: FlaskClient, body: dict[str, Any], stream: dict[str, Any]
) -> None:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    refused = client.post(path, json={**body, **stream, "stream_options": {"include_usage": True}})
    assert refused.status_code == 400
    assert refused.get_json()["error"] == {
        "message": "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "type": "invalid_request_error",
        "param": "stream_options",
        "code": None,
    }
    assert client.post(path, json={**body, **stream, "stream_options": None}).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"tools": []},
        {"functions": []},
        {"tools": [], "tool_choice": "auto"},
        {"functions": [], "function_call": "none"},
    ],
)
def test_an_empty_list_of_tools_has_no_effect(
    client: FlaskClient, make_client: MakeClient, options: dict[str, Any]
) -> None:
    with RecordingAPI("hi") as api:
        for server in (client, make_client(EXTERNAL_CHAT_URL=api.url)):
            answer = server.post("/v1/chat/completions", json={**CHAT, **options})
            assert answer.status_code == 200
            assert answer.get_json()["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_an_empty_list_of_tools_leaves_nothing_to_choose(client: FlaskClient, choice: Any) -> None:
    refused = client.post("/v1/chat/completions", json={**CHAT, "tools": [], "tool_choice": choice})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "tool_choice")


def test_the_number_of_inputs_to_embed_is_limited_by_the_model(make_client: MakeClient, client: FlaskClient) -> None:
    inputs = ["a"] * 2049
    refused = client.post("/v1/embeddings", json={"input": inputs}).get_json()["error"]
    assert (refused["code"], refused["param"]) == ("array_above_max_length", "input")
    with RecordingAPI("") as api:
        make_client(OPENAI_BASE_URL=api.url).post("/v1/embeddings", json={"model": "m", "input": inputs})
        assert len(api.bodies[-1]["input"]) == 2049


def test_token_ids_have_the_vector_of_their_text(client: FlaskClient) -> None:
    tokens = pytest.importorskip("rs_bpe").openai.cl100k_base().encode("the quick brown fox")
    both = client.post("/v1/embeddings", json={"input": ["the quick brown fox"]}).get_json()["data"]
    both += client.post("/v1/embeddings", json={"input": [tokens]}).get_json()["data"]
    assert both[0]["embedding"] == both[1]["embedding"]


def test_two_applications_in_one_process_are_independent(make_client: MakeClient) -> None:
    one, other = make_client(API_KEYS="k"), make_client()
    assert one.get("/v1/models").status_code == 401
    assert other.get("/v1/models").status_code == 200
    assert one.application.extensions["openai_compat"] is not other.application.extensions["openai_compat"]


def test_importing_the_package_imports_no_heavy_libraries() -> None:
    import subprocess
    import sys

    code = "import sys, openai_compat, config; print({'flask', 'requests', 'ssl', 'gevent'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    assert create_app


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_models_name_of_megabytes_is_neither_logged_nor_repeated_whole(
    make_client: MakeClient, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    client = make_client(LOG_FORMAT=log_format)
    for body in (
        {"model": "m" * 5_000_000, "messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "r" * 5_000_000, "content": "Hi"}]},
    ):
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code >= 400
        assert len(response.data) < 10_000
    assert len(capsys.readouterr().err) < 20_000


def test_a_path_cannot_imitate_the_fields_of_its_log_line(
    make_client: MakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    make_client().get("/v1/models%20status=200%20ms=1%20model=x")
    logged = capsys.readouterr().err
    assert re.findall(r"(?:^| )(\w+)=(\S*)", logged)[0] == ("status", "404")
    assert " status=200" not in logged
