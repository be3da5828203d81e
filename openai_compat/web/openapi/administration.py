"""Paths of the administration endpoints in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openai_compat.web.schemas.administration import (
    ACCOUNT_REQUEST,
    METER_REQUEST,
    NEW_ACCOUNT_REQUEST,
    ROTATION_REQUEST,
)

from .stored_objects import to_list, to_operation

_TAG: Final = "Administration"
_ROOT: Final = "/v1/organization"
_PROJECT: Final = f"{_ROOT}/projects/{{project_id}}"
_KEY: Final = f"{_PROJECT}/api_keys/{{key_id}}"
_POLICY: Final = {"limits": {"requests_per_minute": 60}, "budgets": [{"amount": 5, "every": "month"}]}
_CREATED: Final = {"created_at": 1767225600, "enabled": True, "expires_at": None}
_OWN: Final = {"policy": _POLICY, "metadata": {}, "tags": [], "source": "api"}
_ORGANIZATION_OBJECT: Final = {"id": "org-default", "object": "organization", "name": "Acme", **_CREATED, **_OWN}
_PROJECT_OBJECT: Final = {
    "id": "proj_1", "object": "organization.project", "status": "active", "name": "search", **_CREATED, **_OWN,
}  # fmt: skip
_KEY_OBJECT: Final = {
    "id": "key_1",
    "object": "organization.project.api_key",
    "redacted_value": "sk-oc-abcdef...wxyz",
    "project_id": "proj_1",
    "name": "website",
    **_CREATED,
    **_OWN,
}
_SECRET_OBJECT: Final = {**_KEY_OBJECT, "value": "sk-oc-..."}
_METER: Final = {
    "object": "organization.meter", "name": "budget:month:UTC", "kind": "money", "limit": 5.0, "used": 1.25,
    "held": 0.0, "remaining": 3.75, "resets_in_seconds": 86400.0,
}  # fmt: skip
_DELETED: Final = {"object": "organization.project.api_key.deleted", "id": "key_1", "deleted": True}
_USAGE: Final = {"object": "page", "data": [], "has_more": False, "next_page": None}


def _query(name: str, type_: str, description: str, *, is_required: bool = False) -> dict[str, Any]:
    schema = {"type": "array", "items": {"type": "string"}} if type_ == "array" else {"type": type_}
    return {"name": name, "in": "query", "required": is_required, "schema": schema, "description": description}


_LIST_QUERY: Final = (
    _query("limit", "integer", "Entries of a page, 20 by default and at most 100."),
    _query("after", "string", "The id of the last entry of the page before."),
)
_END_USER: Final = _query("end_user", "string", "An end user, for its meters instead of those of all.")
_TIMES: Final = (
    _query("start_time", "integer", "Unix time of the first call.", is_required=True),
    _query("end_time", "integer", "Unix time after the last call, now by default."),
)
_FILTERS: Final = tuple(
    _query(name, "array", "Only calls of these.") for name in ("project_ids", "api_key_ids", "user_ids", "models")
)
_BUCKETS: Final = (
    _query("bucket_width", "string", "`1m`, `1h` or `1d`."),
    _query("group_by", "array", "`project_id`, `api_key_id`, `user_id`, `model`, `line_item`."),
    _query("limit", "integer", "Buckets of a page."),
    _query("page", "string", "`next_page` of the page before."),
)


def administration_paths() -> dict[str, dict[str, Any]]:
    """Return the operations of each path."""
    paths = {**_account_paths(), **_meter_paths(), **_usage_paths()}
    for operations in paths.values():
        for operation in operations.values():
            operation["security"] = [{"admin": []}]
    return paths


def _account_paths() -> dict[str, dict[str, Any]]:
    projects, keys = f"{_ROOT}/projects", f"{_PROJECT}/api_keys"
    change, new = {"policy": _POLICY}, {"name": "search", "policy": _POLICY}
    archived = {**_PROJECT_OBJECT, "status": "archived", "enabled": False}
    overlap = {"overlap_seconds": 3600}
    return {
        _ROOT: {
            "get": _operation(_ROOT, "Get the organization", _ORGANIZATION_OBJECT),
            "post": _operation(_ROOT, "Change the organization", _ORGANIZATION_OBJECT, ACCOUNT_REQUEST, change),
        },
        projects: {
            "get": _operation(projects, "List the projects", to_list(_PROJECT_OBJECT), query=_LIST_QUERY),
            "post": _operation(projects, "Create a project", _PROJECT_OBJECT, NEW_ACCOUNT_REQUEST, new),
        },
        _PROJECT: {
            "get": _operation(_PROJECT, "Get a project", _PROJECT_OBJECT),
            "post": _operation(_PROJECT, "Change a project", _PROJECT_OBJECT, ACCOUNT_REQUEST, change),
        },
        f"{_PROJECT}/archive": {"post": _operation(f"{_PROJECT}/archive", "Archive a project", archived)},
        keys: {
            "get": _operation(keys, "List the keys of a project", to_list(_KEY_OBJECT), query=_LIST_QUERY),
            "post": _operation(keys, "Create a key", _SECRET_OBJECT, NEW_ACCOUNT_REQUEST, new),
        },
        _KEY: {
            "get": _operation(_KEY, "Get a key", _KEY_OBJECT),
            "post": _operation(_KEY, "Change a key", _KEY_OBJECT, ACCOUNT_REQUEST, change),
            "delete": _operation(_KEY, "Delete a key", _DELETED),
        },
        f"{_KEY}/rotate": {
            "post": _operation(f"{_KEY}/rotate", "Rotate a key", _SECRET_OBJECT, ROTATION_REQUEST, overlap)
        },
    }


def _meter_paths() -> dict[str, dict[str, Any]]:
    listed = {"object": "list", "data": [_METER], "has_more": False}
    owners = {_ROOT: "the organization", _PROJECT: "a project", _KEY: "a key"}
    body = {"name": "budget:month:UTC", "used": 0}
    return {
        f"{path}/meters": {
            "get": _operation(f"{path}/meters", f"List the meters of {owner}", listed, query=(_END_USER,)),
            "post": _operation(
                f"{path}/meters", f"Set a meter of {owner}", _METER, METER_REQUEST, body, query=(_END_USER,)
            ),
        }
        for path, owner in owners.items()
    }


def _usage_paths() -> dict[str, dict[str, Any]]:
    summaries = {
        "usage/completions": "Get the usage of completions",
        "usage/embeddings": "Get the usage of embeddings",
        "costs": "Get the costs",
    }
    query = (*_TIMES, *_BUCKETS, *_FILTERS)
    reports = {
        f"{_ROOT}/{path}": {"get": _operation(f"{_ROOT}/{path}", summary, _USAGE, query=query)}
        for path, summary in summaries.items()
    }
    path = f"{_ROOT}/usage/export"
    format_ = _query("format", "string", "`csv` or `jsonl`.")
    export = _operation(path, "Export the calls", {}, query=(*_TIMES, format_, *_FILTERS))
    rows = {"text/csv": {"schema": {"type": "string"}, "example": "id,at,organization_id\n"}}
    export["responses"]["200"]["content"] = rows
    return {**reports, path: {"get": export}}


def _operation(
    path: str,
    summary: str,
    example: Mapping[str, Any],
    body: Any = None,
    body_example: Mapping[str, Any] | None = None,
    query: tuple[Mapping[str, Any], ...] = (),
) -> dict[str, Any]:
    operation = to_operation(path, _TAG, summary, example, body, body_example)
    operation["parameters"] += query
    return operation
