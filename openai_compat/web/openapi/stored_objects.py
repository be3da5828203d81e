"""Paths of conversations, stored responses and stored chat completions in the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from marshmallow import Schema

from openai_compat.web.schemas.conversations import CONVERSATION_REQUEST, ITEMS_REQUEST, METADATA_REQUEST
from openai_compat.web.schemas.responses import RESPONSES_REQUEST

_JSON: Final = "application/json"
_OBJECT: Final = {"type": "object"}
_CONVERSATION: Final = {"id": "conv_1", "object": "conversation", "created_at": 1767225600, "metadata": {}}
_ITEM: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hello!"}],
    "status": "completed",
}
_MESSAGE: Final = {"id": "chatcmpl-1-0", "role": "user", "content": "Hello!", "name": None, "content_parts": None}
_COMPLETION: Final = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1767225600, "choices": []}
_RESPONSE: Final = {"id": "resp_1", "object": "response", "created_at": 1767225600, "status": "completed", "output": []}
_LIST_DESCRIPTION: Final = (
    "The conversations of the caller's key, the newest first. OpenAI's API has no such list. Without a key it is a "
    "401, and a 501 where new conversations are passed through to an upstream."
)
_METADATA: Final = {"metadata": {"topic": "demo"}}
_LIST_PARAMETERS: Final = (
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"type": "string", "enum": ["asc", "desc"]}},
    {
        "name": "after",
        "in": "query",
        "schema": {"type": "string"},
        "description": "The id of the last entry of the page before.",
    },
)


def stored_object_paths() -> dict[str, dict[str, Any]]:
    """Return the operations of each path."""
    return {**_conversation_paths(), **_completion_paths(), **_response_paths()}


def _conversation_paths() -> dict[str, dict[str, Any]]:
    path, tag = "/v1/conversations", "Conversations"
    deleted = {"id": "conv_1", "object": "conversation.deleted", "deleted": True}
    items = f"{path}/{{id}}/items"
    new_items = {"items": [{"role": "user", "content": "Hello!"}]}
    return {
        path: {
            "get": _conversation_list(path, tag),
            "post": to_operation(path, tag, "Start a conversation", _CONVERSATION, CONVERSATION_REQUEST, new_items),
        },
        f"{path}/{{id}}": _object_operations(f"{path}/{{id}}", tag, "a conversation", _CONVERSATION, deleted),
        items: {
            "get": to_operation(items, tag, "List the items of a conversation", to_list(_ITEM), is_list=True),
            "post": to_operation(items, tag, "Add items to a conversation", to_list(_ITEM), ITEMS_REQUEST, new_items),
        },
        f"{items}/{{item_id}}": {
            "get": to_operation(f"{items}/{{item_id}}", tag, "Get an item of a conversation", _ITEM),
            "delete": to_operation(f"{items}/{{item_id}}", tag, "Delete an item of a conversation", _CONVERSATION),
        },
    }


def _conversation_list(path: str, tag: str) -> dict[str, Any]:
    operation = to_operation(path, tag, "List conversations", to_list(_CONVERSATION), is_list=True)
    return operation | {
        "description": _LIST_DESCRIPTION,
        "responses": {**operation["responses"], "501": "Error501"},
    }


def _completion_paths() -> dict[str, dict[str, Any]]:
    path, tag = "/v1/chat/completions", "Stored chat completions"
    deleted = {"id": "chatcmpl-1", "object": "chat.completion.deleted", "deleted": True}
    messages = f"{path}/{{id}}/messages"
    return {
        path: {"get": to_operation(path, tag, "List stored chat completions", to_list(_COMPLETION), is_list=True)},
        f"{path}/{{id}}": _object_operations(f"{path}/{{id}}", tag, "a stored chat completion", _COMPLETION, deleted),
        messages: {
            "get": to_operation(
                messages, tag, "List the messages of a stored chat completion", to_list(_MESSAGE), is_list=True
            )
        },
    }


def _response_paths() -> dict[str, dict[str, Any]]:
    path, tag = "/v1/responses/{id}", "Responses"
    deleted = {"id": "resp_1", "object": "response", "deleted": True}
    items, cancel = f"{path}/input_items", f"{path}/cancel"
    counted, compact = "/v1/responses/input_tokens", "/v1/responses/compact"
    request, tokens = {"input": "Hello!"}, {"object": "response.input_tokens", "input_tokens": 2}
    compaction = {"id": "resp_1", "object": "response.compaction", "created_at": 1767225600, "output": []}
    return {
        path: {
            "get": to_operation(path, tag, "Get a stored response", _RESPONSE),
            "delete": to_operation(path, tag, "Delete a stored response", deleted),
        },
        counted: {"post": to_operation(counted, tag, "Count input tokens", tokens, RESPONSES_REQUEST, request)},
        compact: {"post": to_operation(compact, tag, "Compact the input", compaction, RESPONSES_REQUEST, request)},
        cancel: {
            "post": to_operation(cancel, tag, "Cancel a background response", {**_RESPONSE, "status": "cancelled"})
        },
        items: {
            "get": to_operation(items, tag, "List the input items of a stored response", to_list(_ITEM), is_list=True)
        },
    }


def _object_operations(
    path: str, tag: str, name: str, example: Mapping[str, Any], deleted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the operations of an object with metadata."""
    return {
        "get": to_operation(path, tag, f"Get {name}", example),
        "post": to_operation(path, tag, f"Replace the metadata of {name}", example, METADATA_REQUEST, _METADATA),
        "delete": to_operation(path, tag, f"Delete {name}", deleted),
    }


def to_operation(
    path: str,
    tag: str,
    summary: str,
    example: Mapping[str, Any],
    body: Schema | None = None,
    body_example: Mapping[str, Any] | None = None,
    *,
    is_list: bool = False,
) -> dict[str, Any]:
    """Return an operation, whose id is made of its summary."""
    names = re.findall(r"{(\w+)}", path)
    parameters: list[Any] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    reply = {"description": f"{summary}.", "content": {_JSON: {"schema": _OBJECT, "example": example}}}
    failures = (400, 401, 404) if names or is_list else (400, 401)
    first, *rest = summary.split()
    operation: dict[str, Any] = {
        "operationId": first.lower() + "".join(word.capitalize() for word in rest),
        "summary": summary,
        "tags": [tag],
        "parameters": [*parameters, *(_LIST_PARAMETERS if is_list else ())],
        "responses": {"200": reply, **{str(status): f"Error{status}" for status in failures}},
    }
    if body is not None:
        operation["requestBody"] = {"content": {_JSON: {"schema": body, "example": body_example}}}
    return operation


def to_list(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [entry], "first_id": entry["id"], "last_id": entry["id"], "has_more": False}
