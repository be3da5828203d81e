"""The OpenAPI document is valid and matches the server, and its pages need no internet access."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from openai_compat import create_app
from openai_compat.config import environment
from openai_compat.web.routes.docs import ASSETS

PAGES = ["/docs", "/redoc"]
CHAT, ASK = "/v1/chat/completions", "/ask"
EXAMPLE_NAMES = [
    ("post", CHAT, ["plain", "conversation", "streamed", "tools"]),
    ("post", "/v1/responses", ["text", "streamed", "tools"]),
    ("post", "/v1/completions", ["text", "texts", "streamed"]),
    ("post", "/v1/embeddings", ["text", "texts", "base64"]),
    ("post", ASK, ["messages", "useChat"]),
]
REQUESTS = [(path, name) for _, path, names in EXAMPLE_NAMES for name in names]


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(environment.load({})).test_client()


@pytest.fixture(scope="module")
def document(client: FlaskClient) -> dict[str, Any]:
    reply = client.get("/openapi.json")
    assert reply.status_code == 200
    assert reply.content_type == "application/json"
    document: dict[str, Any] = json.loads(reply.data)
    return document


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """Return a JSON Schema validator, which resolves references to the document's components."""
    return Draft202012Validator({**schema, "components": document["components"]})


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def media(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every body in the document, with its location."""
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            yield f"{method} {path}", operation["requestBody"]["content"]["application/json"]
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                yield f"{method} {path} {status} {kind}", content
    for name, response in document["components"]["responses"].items():
        yield name, response["content"]["application/json"]


def request_example(document: dict[str, Any], path: str, name: str) -> Any:
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"][name]["value"]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    endpoints = {"/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/{model}", "/healthz", "/readyz"}
    endpoints |= {"/health", "/v1/responses", "/v1/responses/{id}", "/v1/responses/{id}/input_items"}
    endpoints |= {"/v1/responses/{id}/cancel", "/v1/responses/input_tokens", "/v1/responses/compact"}
    endpoints |= {f"{CHAT}/{{id}}", f"{CHAT}/{{id}}/messages", "/v1/conversations", "/v1/conversations/{id}"}
    endpoints |= {"/v1/messages", "/v1/messages/count_tokens"}
    endpoints |= {"/v1/conversations/{id}/items", "/v1/conversations/{id}/items/{item_id}"}
    keys = "/v1/organization/projects/{project_id}/api_keys"
    endpoints |= {"/v1/organization", "/v1/organization/projects", "/v1/organization/projects/{project_id}"}
    endpoints |= {"/v1/organization/projects/{project_id}/archive", keys, f"{keys}/{{key_id}}"}
    endpoints |= {f"{keys}/{{key_id}}/rotate", f"{keys}/{{key_id}}/meters", "/v1/organization/meters"}
    endpoints |= {"/v1/organization/projects/{project_id}/meters", "/v1/organization/costs"}
    endpoints |= {f"/v1/organization/usage/{name}" for name in ("completions", "embeddings", "export")}
    assert set(document["paths"]) == endpoints | {CHAT, ASK, "/api/v1/healthcheck"}


def test_every_path_of_the_document_exists(client: FlaskClient, document: dict[str, Any]) -> None:
    rules = {
        (re.sub(r"<[^>]+>", "{}", rule.rule), method.lower())
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods or ()
    }
    described = {(re.sub(r"{[^}]+}", "{}", path), method) for method, path, _ in operations(document)}
    assert described <= rules


def test_every_example_matches_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for location, content in media(document):
        examples = [example["value"] for example in content.get("examples", {}).values()]
        for example in examples or [content["example"]]:
            problems = [error.message for error in validator(document, content["schema"]).iter_errors(example)]
            assert problems == [], location
            checked += 1
    assert checked > 30


def test_the_event_examples_match_their_schemas(document: dict[str, Any]) -> None:
    chunks = document["paths"][CHAT]["post"]["responses"]["200"]["content"]["text/event-stream"]["example"]
    texts = document["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"]["example"]
    ask_events = document["paths"][ASK]["post"]["responses"]["200"]["content"]["text/event-stream"]["examples"]["sse"]
    for stream, name in ((chunks, "ChatCompletionChunk"), (texts, "Completion"), (ask_events["value"], "AskEvent")):
        schema = validator(document, {"$ref": f"#/components/schemas/{name}"})
        events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
        for event in events:
            if event != "[DONE]":
                schema.validate(json.loads(event))
        assert len(events) >= 2


@pytest.mark.parametrize(("path", "name"), REQUESTS)
def test_every_example_request_succeeds(client: FlaskClient, document: dict[str, Any], path: str, name: str) -> None:
    reply = client.post(path, json=request_example(document, path, name))
    assert reply.status_code == 200, reply.text
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    assert reply.mimetype in content
    if reply.mimetype == "application/json":
        validator(document, content["application/json"]["schema"]).validate(reply.json)
    else:
        assert reply.text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/mock-gpt-model", "/healthz", "/api/v1/healthcheck"])
def test_responses_match_the_document(client: FlaskClient, document: dict[str, Any], path: str) -> None:
    described = document["paths"][path.replace("mock-gpt-model", "{model}")]["get"]["responses"]["200"]
    validator(document, described["content"]["application/json"]["schema"]).validate(client.get(path).json)


@pytest.mark.parametrize(
    ("path", "body", "component"),
    [(CHAT, "{}", "Error"), (CHAT, '{"messages": "', "Error"), (ASK, "{}", "AskError")],
)
def test_errors_match_the_document(
    client: FlaskClient, document: dict[str, Any], path: str, body: str, component: str
) -> None:
    reply = client.post(path, data=body, content_type="application/json")
    assert reply.status_code == 400
    validator(document, {"$ref": f"#/components/schemas/{component}"}).validate(reply.json)


def test_both_authentication_schemes_are_described_and_health_checks_need_none(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == ("header", "api-key")
    assert {"bearer": []} in document["security"]
    assert {path for _, path, operation in operations(document) if operation.get("security") == []} == {
        "/health",
        "/healthz",
        "/readyz",
        "/api/v1/healthcheck",
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_everything_from_this_server(client: FlaskClient, page: str) -> None:
    reply = client.get(page)
    assert reply.status_code == 200
    assert reply.mimetype == "text/html"
    links = re.findall(r'(?:src|href|data-document|spec-url)="([^"]+)"', reply.text)
    paths = [link for link in links if not link.startswith("data:")]
    assert "/openapi.json" in paths
    assert all(path.startswith("/") and not path.startswith("//") for path in paths)
    assert all(client.get(path).status_code == 200 for path in paths)


@pytest.mark.parametrize("page", PAGES)
def test_the_content_security_policy_forbids_other_hosts(client: FlaskClient, page: str) -> None:
    policy = client.get(page).headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    sources = {source for sources in directives.values() for source in sources.split()}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


def test_redoc_telemetry_is_disabled(client: FlaskClient) -> None:
    assert 'disable-telemetry="true"' in client.get("/redoc").text


@pytest.mark.parametrize(("name", "mimetype"), [("swagger-ui.js", "text/javascript"), ("swagger-ui.css", "text/css")])
def test_an_asset_with_a_known_etag_is_not_sent_again(client: FlaskClient, name: str, mimetype: str) -> None:
    first = client.get(f"/docs/assets/{name}")
    assert first.mimetype == mimetype
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(f"/docs/assets/{name}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["scalar.js", "__init__.py", "url.json", "..%2f__init__.py", "nothing"])
def test_other_files_of_the_package_are_not_served(client: FlaskClient, name: str) -> None:
    assert name not in ASSETS
    reply = client.get(f"/docs/assets/{name}")
    assert reply.status_code == 404
    assert set(json.loads(reply.data)["error"]) == {"message", "type", "param", "code"}


def test_apispec_is_imported_for_the_document_only() -> None:
    program = """
import sys
from openai_compat.config import environment
from openai_compat import create_app
client = create_app(environment.load({})).test_client()
client.get("/healthz")
client.get("/docs/assets/redoc.js")
assert not {"apispec", "offapi", "openai_compat.web.openapi.document"} & set(sys.modules)
client.get("/openapi.json")
assert "apispec" in sys.modules and "offapi" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


@pytest.mark.parametrize("page", PAGES)
def test_the_path_before_a_page_cannot_contain_html(client: FlaskClient, page: str) -> None:
    reply = client.get(page, environ_overrides={"SCRIPT_NAME": '/"><script>alert(1)</script>'})
    assert "openapi.json" in reply.text
    assert "<script>alert" not in reply.text
