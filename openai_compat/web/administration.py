"""What the administration endpoints share, such as their key and the reading of queries and of accounts."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from flask import request

from openai_compat.accounts.policy import Policy, PolicyError, parse_policy
from openai_compat.core.errors import AuthenticationError, InvalidRequestError, NotFoundError
from openai_compat.services.metadata import check_metadata

from .auth import bearer_token
from .inference import read_payload
from .request_context import current_context
from .schemas.administration import ACCOUNT_REQUEST, NEW_ACCOUNT_REQUEST

URL_PREFIXES: Final = ("/v1", "/api/v1", "", "/openai/v1")
ROOT: Final = "/organization"
T = TypeVar("T", int, None)
SECRET_HEADERS: Final = {"cache-control": "no-store"}
"""Headers of an answer with a key, which no proxy and no browser may keep."""


OFF: Final = "The administration endpoints are off. Set ADMIN_API_KEY to use them."


def require_admin_key(key: str | None, off: str = OFF) -> Callable[[], None]:
    """Return a `before_request` function that rejects requests without `ADMIN_API_KEY`.

    If it is not set, all requests are rejected with the message `off`.
    """
    expected = None if key is None else key.encode()

    def check_admin_key() -> None:
        if request.method == "OPTIONS":
            return
        if expected is None:
            raise NotFoundError(off)
        candidate = bearer_token(current_context()).encode("latin-1", "replace")
        if not hmac.compare_digest(expected, candidate):
            raise AuthenticationError("This endpoint needs the server's ADMIN_API_KEY in an Authorization header.")

    return check_admin_key


def read_new_account() -> dict[str, Any]:
    """Return the values of a new account from the request's body.

    Raises:
        InvalidRequestError
    """
    return _to_values(read_payload(NEW_ACCOUNT_REQUEST)[1])


def read_changes() -> dict[str, Any]:
    """Return the values that the request's body replaces, by the names of the fields of `Account`.

    Raises:
        InvalidRequestError
    """
    return _to_values(read_payload(ACCOUNT_REQUEST)[1])


def _to_values(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an account. Null means the default."""
    values: dict[str, Any] = {}
    if payload.get("name") is not None:
        values["name"] = payload["name"]
    if payload.get("enabled") is not None:
        values["is_enabled"] = payload["enabled"]
    if "expires_at" in payload:
        values["expires_at"] = payload["expires_at"]
    if "policy" in payload:
        values["policy"] = _parse_policy(payload["policy"] or {})
    if "metadata" in payload:
        values["metadata"] = payload["metadata"] or {}
        check_metadata(values["metadata"])
    if "tags" in payload:
        values["tags"] = tuple(payload["tags"] or ())
    return values


def _parse_policy(value: Mapping[str, Any]) -> Policy:
    try:
        return parse_policy(value)
    except PolicyError as error:
        raise InvalidRequestError(str(error), param=f"policy.{error.param}", code="invalid_policy") from error


def read_list(name: str) -> tuple[str, ...]:
    """Return the values of a parameter of the query, which may stand several times, also as `name[]`.

    Raises:
        InvalidRequestError: a value has a character that no name has.
    """
    values = (*request.args.getlist(name), *request.args.getlist(f"{name}[]"))
    if not all(value.isprintable() for value in values):
        raise InvalidRequestError(f"Invalid value for '{name}'.", param=name, code="invalid_value")
    return values


def read_choice(name: str, allowed: Sequence[str], default: str) -> str:
    """Return a parameter of the query that has one of the values `allowed`.

    Raises:
        InvalidRequestError
    """
    value = request.args.get(name, default)
    if value not in allowed:
        raise invalid_choice(name, value, allowed)
    return value


def invalid_choice(name: str, value: str, allowed: Sequence[str]) -> InvalidRequestError:
    """Return the error for a value that is none of those `allowed`."""
    supported = ", ".join(f"'{one}'" for one in allowed)
    return InvalidRequestError(
        f"Invalid value: '{value}'. Supported values are: {supported}.", param=name, code="invalid_value"
    )


def read_number(name: str, default: T, minimum: int, maximum: int) -> int | T:
    """Return a parameter of the query that is a whole number, or `default` if it is absent.

    Raises:
        InvalidRequestError
    """
    text = request.args.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else -1
    if not minimum <= number <= maximum:
        raise InvalidRequestError(
            f"Invalid '{name}': expected a whole number between {minimum} and {maximum}.",
            param=name,
            code="invalid_value",
        )
    return number
