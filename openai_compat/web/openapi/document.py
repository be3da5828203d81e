"""OpenAPI document of this server, generated from the marshmallow schemas with apispec.

It has version 3.1, in which schemas are JSON Schema. It is built for the first request to it.
"""

from __future__ import annotations

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema

from openai_compat.core.version import __version__
from openai_compat.web.schemas import ask, chat, completions, embeddings, replies, responses
from openai_compat.web.schemas.fields import List, OneOf, PromptInput

from . import examples
from .administration import administration_paths
from .messages import messages_paths
from .stored_objects import stored_object_paths

OPENAPI_VERSION = "3.1.0"
API_DESCRIPTION = """One server that speaks the OpenAI REST API, in front of any model.

Set the base URL of an OpenAI client to this server's `/v1`. The same paths exist under `/api/v1` and without a prefix
(`/chat/completions`), and for Azure's clients under `/openai/deployments/{model}/chat/completions`. All other requests
below these roots are forwarded to the upstream of the model that they name, or to the default upstream.
"""
KEY_DESCRIPTION = (
    "A key of `API_KEYS`, or one that was created. If there is none, requests with any key or without one are accepted."
)
SECURITY_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": KEY_DESCRIPTION},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "api-key",
        "description": f"For Azure's clients. {KEY_DESCRIPTION}",
    },
    "xApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": f"For Anthropic's clients. {KEY_DESCRIPTION}",
    },
    "admin": {
        "type": "http",
        "scheme": "bearer",
        "description": "`ADMIN_API_KEY`. The administration endpoints are off if the server has none.",
    },
}
REQUEST_ID_HEADER = {
    "x-request-id": {"description": "The id of this request in the server's log.", "schema": {"type": "string"}}
}
JSON = "application/json"
EVENTS = "text/event-stream"


class SchemaConverter(OpenAPIConverter):
    """Converter of the fields in `schemas/fields.py` that apispec does not know."""

    def init_attribute_functions(self) -> None:
        super().init_attribute_functions()  # type: ignore[no-untyped-call]
        self.attribute_functions += [self.alternatives_of, self.item_limits_of]

    def alternatives_of(self, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
        """Return `anyOf` for a field with alternatives."""
        if not isinstance(field, OneOf | PromptInput):
            return {}
        choices: list[dict[str, Any]] = [self.field2property(alternative) for alternative in field.alternatives]
        return {"anyOf": [*choices, {"type": "null"}] if field.allow_none else choices}

    def item_limits_of(self, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
        """Return `minItems` and `maxItems` for a list with limits."""
        if not isinstance(field, List):
            return {}
        limits = {"minItems": field.min_items or None, "maxItems": field.max_items}
        return {name: limit for name, limit in limits.items() if limit is not None}


class SchemaPlugin(MarshmallowPlugin):
    Converter = SchemaConverter


def build_openapi(model: str) -> dict[str, Any]:
    """Return the document as a dict that `json.dumps` accepts. The examples use `model`."""
    spec = APISpec(
        title="OpenAI-compatible API",
        version=__version__,
        openapi_version=OPENAPI_VERSION,
        plugins=[SchemaPlugin()],
        info={"description": API_DESCRIPTION},
        servers=[{"url": "/", "description": "This server."}],
        security=[{}, *({name: []} for name in SECURITY_SCHEMES if name != "admin")],
    )
    _add_components(spec)
    for path, operations in {
        **_inference_paths(model),
        **_models_paths(model),
        **_ask_paths(),
        **_health_paths(),
    }.items():
        spec.path(path=path, operations=operations)
    others = {**stored_object_paths(), **messages_paths(model), **administration_paths()}
    for path, operations in others.items():
        spec.path(path=path, operations=operations)
    return spec.to_dict()


def _add_components(spec: APISpec) -> None:
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    spec.components.schema("ChatCompletionChunk", schema=replies.ChatCompletionChunkSchema)
    spec.components.schema("AskEvent", schema=replies.AskEventSchema)
    for status, (description, error) in examples.ERRORS.items():
        reply = _reply(description, replies.ErrorSchema, error.to_envelope())
        spec.components.response(f"Error{status}", reply)


def _operation(name: str, summary: str, tag: str, responses: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "tags": [tag], "responses": responses, **others}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): f"Error{status}" for status in statuses}


def _reply(description: str, schema: type[Schema], example: Any, **more_content: Any) -> dict[str, Any]:
    content = {JSON: {"schema": schema, "example": example}, **more_content}
    return {"description": description, "headers": REQUEST_ID_HEADER, "content": content}


def _body(schema: Schema, requests: examples.Examples) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": schema, "examples": requests}}}


def _events(stream: str) -> dict[str, Any]:
    return {EVENTS: {"schema": {"type": "string"}, "example": stream}}


def _inference_paths(model: str) -> dict[str, Any]:
    """Return the paths of the inference endpoints."""
    chat_reply = _reply(
        "The answer, or with `stream: true` its chunks (`ChatCompletionChunk`).",
        replies.ChatCompletionSchema,
        examples.chat_reply(model),
        **_events(examples.chat_stream(model)),
    )
    completion_reply = _reply(
        "The continuations, or with `stream: true` their chunks (also `Completion`).",
        replies.CompletionSchema,
        examples.completion_reply(model),
        **_events(examples.completion_stream(model)),
    )
    response_reply = _reply(
        "The response, or with `stream: true` its events, of which the last one has the complete response.",
        replies.ResponseSchema,
        examples.responses_reply(model),
        **_events(examples.responses_stream(model)),
    )
    vectors = _reply("One vector for each input.", replies.EmbeddingsSchema, examples.embeddings_reply(model))
    chat_body = _body(chat.CHAT_REQUEST, examples.chat_requests(model))
    response_body = _body(responses.RESPONSES_REQUEST, examples.responses_requests(model))
    completion_body = _body(completions.COMPLETION_REQUEST, examples.completion_requests(model))
    embeddings_body = _body(embeddings.EMBEDDINGS_REQUEST, examples.embeddings_requests(model))
    endpoints = {
        "/v1/chat/completions": ("createChatCompletion", "Answer a conversation", "Chat", chat_body, chat_reply),
        "/v1/responses": ("createResponse", "Answer a text or items", "Responses", response_body, response_reply),
        "/v1/completions": ("createCompletion", "Continue a text", "Completions", completion_body, completion_reply),
        "/v1/embeddings": ("createEmbedding", "Turn texts into vectors", "Embeddings", embeddings_body, vectors),
    }
    errors = _errors(400, 401, 404, 413, 415, 501, 502)
    return {
        path: {"post": _operation(name, summary, tag, {"200": reply, **errors}, requestBody=body)}
        for path, (name, summary, tag, body, reply) in endpoints.items()
    }


def _models_paths(model: str) -> dict[str, Any]:
    one = examples.model_reply(model)
    every = _reply("All models.", replies.ModelListSchema, {"object": "list", "data": [one]})
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": model}
    name["description"] = "The model's id. It may contain `/`."
    found = {"200": _reply("The model.", replies.ModelSchema, one), **_errors(401, 404)}
    listing = _operation("listModels", "List the models", "Models", {"200": every, **_errors(401)})
    description = _operation("retrieveModel", "Describe a model", "Models", found, parameters=[name])
    return {"/v1/models": {"get": listing}, "/v1/models/{model}": {"get": description}}


def _ask_paths() -> dict[str, Any]:
    """Return the path of the endpoint for browser front ends. Its errors have their own format."""
    stream_format = {
        "name": "format",
        "in": "query",
        "schema": {"type": "string", "enum": ["sse", "text", "ui"]},
        "description": "The format of the stream. If absent, it follows from `Accept`, then from the messages (`ui` if "
        "they have `parts`), then from the server's setting.",
    }
    content = {
        EVENTS: {"schema": {"type": "string"}, "examples": examples.ask_streams()},
        "text/plain": {"schema": {"type": "string"}, "example": "Hello!"},
    }
    description = "The streamed answer: JSON events (`AskEvent`), plain text, or the AI SDK's UI message stream."
    marker = {"description": "`v1`, with `format=ui`.", "schema": {"type": "string"}}
    headers = {**REQUEST_ID_HEADER, "x-vercel-ai-ui-message-stream": marker}
    refused = _reply("The request is invalid.", replies.AskErrorSchema, examples.ask_error("'messages'"))
    failed = _reply(
        "The server or the upstream failed.", replies.AskErrorSchema, examples.ask_error("The server had an error.")
    )
    no_key = _reply("The request has no valid API key.", replies.AskErrorSchema, examples.ask_error("No key."))
    responses = {
        "200": {"description": description, "headers": headers, "content": content},
        "400": refused,
        "401": no_key,
        "413": refused,
        "500": failed,
    }
    body = _body(ask.ASK_REQUEST, examples.ask_requests())
    summary = "Ask a question and stream the answer"
    operation = _operation("ask", summary, "Ask", responses, parameters=[stream_format], requestBody=body)
    return {"/ask": {"post": operation}}


def _health_paths() -> dict[str, Any]:
    """Return the paths of the health checks, which need no API key."""
    health = {"status": "healthy", "timestamp": "2026-01-10T12:00:00.000000", "service": "openai-compatible-api"}
    checks: dict[str, tuple[str, str, type[Schema], dict[str, str]]] = {
        "/healthz": ("isAlive", "The server is alive", replies.StatusSchema, {"status": "ok"}),
        "/health": ("isAliveAlias", "The server is alive", replies.StatusSchema, {"status": "ok"}),
        "/readyz": ("isReady", "The server accepts requests", replies.StatusSchema, {"status": "ready"}),
        "/api/v1/healthcheck": ("healthcheck", "The server's health", replies.HealthcheckSchema, health),
    }
    return {
        path: {"get": _operation(name, summary, "Health", {"200": _reply(f"{summary}.", schema, example)}, security=[])}
        for path, (name, summary, schema, example) in checks.items()
    }
