"""Endpoints of the organization, its projects and their keys, shaped like OpenAI's administration API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Response, request

from openai_compat.accounts.account import Account, Kind
from openai_compat.accounts.account_objects import to_deleted, to_object
from openai_compat.accounts.manager import NewAccount
from openai_compat.accounts.meters import to_meter_list
from openai_compat.accounts.service import Accounts
from openai_compat.core.errors import AccountsUnavailableError, NotFoundError, ObjectNotFoundError
from openai_compat.services.stored_lists import raise_unknown_cursor
from openai_compat.state.base import StoreError
from openai_compat.storage.pages import UnknownCursorError
from openai_compat.web.administration import (
    ROOT,
    SECRET_HEADERS,
    read_changes,
    read_choice,
    read_new_account,
    read_number,
)
from openai_compat.web.inference import read_payload
from openai_compat.web.json_response import json_response
from openai_compat.web.schemas.administration import METER_REQUEST, ROTATION_REQUEST

from .usage import add_usage_routes

MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 20
KEYS: Final = f"{ROOT}/projects/<project_id>/api_keys"
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def administration_blueprint(accounts: Accounts, check: Callable[[], None], name: str = "administration") -> Blueprint:
    """Return the blueprint of `{root}/organization`. No path below it goes to an upstream.

    `check` raises an error for a request that is not an administrator's.
    """
    blueprint = Blueprint(name, __name__)
    blueprint.before_request(check)
    blueprint.register_error_handler(StoreError, _raise_unavailable)
    _add_organization(blueprint, accounts)
    _add_projects(blueprint, accounts)
    _add_keys(blueprint, accounts)
    add_usage_routes(blueprint, accounts)

    @blueprint.route(f"{ROOT}/<path:path>", methods=METHODS)
    def refuse(path: str) -> Response:
        raise NotFoundError(f"Invalid URL ({request.method} {request.path.replace(' ', '%20')})")

    return blueprint


def _raise_unavailable(error: StoreError) -> Response:
    """Raise the error of a ledger that is away."""
    raise AccountsUnavailableError from error


def _add_organization(blueprint: Blueprint, accounts: Accounts) -> None:
    manager = accounts.manager

    @blueprint.get(ROOT)
    def get_organization() -> Response:
        return json_response(to_object(manager.organization()))

    @blueprint.post(ROOT)
    def update_organization() -> Response:
        return json_response(to_object(manager.change_organization(read_changes())))

    _add_meters(blueprint, accounts, ROOT, manager.organization)


def _add_projects(blueprint: Blueprint, accounts: Accounts) -> None:
    manager = accounts.manager
    path = f"{ROOT}/projects"

    def find(project_id: str) -> Account:
        return manager.get("project", project_id)

    @blueprint.get(path)
    def list_projects() -> Response:
        with_archived = read_choice("include_archived", ("true", "false"), "false") == "true"
        return _list(accounts, "project", None, with_disabled=with_archived)

    @blueprint.post(path)
    def create_project() -> Response:
        new = NewAccount(**read_new_account())
        return json_response(to_object(manager.create("project", new)))

    @blueprint.get(f"{path}/<project_id>")
    def get_project(project_id: str) -> Response:
        return json_response(to_object(find(project_id)))

    @blueprint.post(f"{path}/<project_id>")
    def update_project(project_id: str) -> Response:
        return json_response(to_object(manager.change("project", project_id, read_changes())))

    @blueprint.post(f"{path}/<project_id>/archive")
    def archive_project(project_id: str) -> Response:
        return json_response(to_object(manager.change("project", project_id, {"is_enabled": False})))

    _add_meters(blueprint, accounts, f"{path}/<project_id>", find)


def _add_keys(blueprint: Blueprint, accounts: Accounts) -> None:
    manager = accounts.manager

    def find(project_id: str, key_id: str) -> Account:
        key = manager.get("key", key_id)
        if key.parent_id != project_id:
            raise ObjectNotFoundError(f"The project has no key with the id '{key_id[:100]}'.")
        return key

    @blueprint.get(KEYS)
    def list_keys(project_id: str) -> Response:
        return _list(accounts, "key", manager.get("project", project_id).id)

    @blueprint.post(KEYS)
    def create_key(project_id: str) -> Response:
        new = NewAccount(parent_id=project_id, **read_new_account())
        return _show_secret(*manager.create_key(new))

    @blueprint.get(f"{KEYS}/<key_id>")
    def get_key(project_id: str, key_id: str) -> Response:
        return json_response(to_object(find(project_id, key_id)))

    @blueprint.post(f"{KEYS}/<key_id>")
    def update_key(project_id: str, key_id: str) -> Response:
        key = find(project_id, key_id)
        return json_response(to_object(manager.change("key", key.id, read_changes())))

    @blueprint.delete(f"{KEYS}/<key_id>")
    def delete_key(project_id: str, key_id: str) -> Response:
        key = find(project_id, key_id)
        manager.delete(key)
        return json_response(to_deleted(key))

    @blueprint.post(f"{KEYS}/<key_id>/rotate")
    def rotate_key(project_id: str, key_id: str) -> Response:
        overlap = read_payload(ROTATION_REQUEST)[1].get("overlap_seconds") or 0
        return _show_secret(*manager.rotate_key(find(project_id, key_id).id, overlap))

    _add_meters(blueprint, accounts, f"{KEYS}/<key_id>", find)


def _add_meters(blueprint: Blueprint, accounts: Accounts, path: str, find: Callable[..., Account]) -> None:
    """Add the endpoints of an account's limits and budgets. The query may name an end user of the account."""
    name = find.__qualname__.replace(".", "_").replace("<locals>", "")

    @blueprint.get(f"{path}/meters", endpoint=f"{name}_meters")
    def list_meters(**ids: str) -> Response:
        states = accounts.meters.states(find(**ids), request.args.get("end_user"))
        return json_response(to_meter_list(states))

    @blueprint.post(f"{path}/meters", endpoint=f"{name}_set_meter")
    def set_meter(**ids: str) -> Response:
        body = read_payload(METER_REQUEST)[1]
        state = accounts.meters.set_used(find(**ids), body["name"], body["used"], request.args.get("end_user"))
        accounts.bookkeeper.start()  # it moves the record of the correction to the database
        return json_response(state.to_object())


def _show_secret(key: Account, secret: str) -> Response:
    """Return a key with its secret, which is shown this once."""
    return json_response({**to_object(key), "value": secret}, headers=SECRET_HEADERS)


def _list(accounts: Accounts, kind: Kind, parent_id: str | None, *, with_disabled: bool = True) -> Response:
    after = request.args.get("after")
    limit = read_number("limit", DEFAULT_PAGE, 1, MAX_PAGE)
    try:
        found, has_more = accounts.manager.page(kind, parent_id, after, limit, with_disabled=with_disabled)
    except UnknownCursorError:
        raise_unknown_cursor(after)
    ids: list[Any] = [account.id for account in found] or [None]
    return json_response(
        {
            "object": "list",
            "data": [to_object(account) for account in found],
            "first_id": ids[0],
            "last_id": ids[-1],
            "has_more": has_more,
        }
    )
