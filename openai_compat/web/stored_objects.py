"""What the endpoints of stored objects share, such as owners, lists, and objects of an upstream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from flask import Response, request

from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError, WebSocketError
from openai_compat.services.openai_objects import is_own_id
from openai_compat.services.owner import owner_of
from openai_compat.storage.pages import Cursor, Order

from .errors import is_websocket
from .inference import read_payload
from .json_response import BytesResponse, json_response
from .request_context import current_context
from .schemas.conversations import METADATA_REQUEST

URL_PREFIXES: Final = ("/v1", "", "/api/v1", "/openai/v1", "/openai")
UpdateMetadata = Callable[[str, str, Mapping[str, str]], Mapping[str, Any]]
"""Replace the metadata of an owner's object, named by its id, and return the object."""
DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


class Passing(Protocol):
    """The passthrough, for objects that this server did not make."""

    def serves(self, path: str) -> bool: ...

    def forward(self, path: str) -> Response: ...


class ObjectEndpoints:
    """The endpoints of one kind of objects, whose ids begin with `prefix`.

    An id that this server did not make, or does not know any more, goes to the passthrough if it serves the path.
    """

    def __init__(self, prefix: str, missing: Callable[[str], ObjectNotFoundError], passing: Passing) -> None:
        self._prefix = prefix
        self._missing = missing
        self._passing = passing

    def respond(self, id: str, path: str, answer: Callable[[str], Response]) -> Response:
        """Return `answer(owner)`, or the upstream's response.

        Raises:
            ObjectNotFoundError, and what `answer` raises.
        """
        if is_own_id(id, self._prefix):
            try:
                return answer(current_owner())
            except ObjectNotFoundError:
                if not self._passing.serves(path):
                    raise
        elif not self._passing.serves(path):
            raise self._missing(id)
        return self._passing.forward(path)

    def update_metadata(self, id: str, path: str, update: UpdateMetadata) -> Response:
        """Give an object the metadata of the request, and return it. Raise the errors of `respond`."""

        def answer(owner: str) -> Response:
            metadata = read_payload(METADATA_REQUEST)[1]["metadata"] or {}
            return json_response(update(owner, id, metadata))

        return self.respond(id, path, answer)


def reject_websocket() -> None:
    """Refuse a WebSocket, which begins with a GET.

    Raises:
        WebSocketError
    """
    if is_websocket(request):
        raise WebSocketError


def current_owner() -> str:
    """Return the owner of the objects that the current request makes."""
    return owner_of(current_context().identity)


def read_cursor(default_order: Order) -> Cursor:
    """Return the part of a list that the current query asks for.

    Raises:
        InvalidRequestError
    """
    order = request.args.get("order", default_order)
    if order not in ("asc", "desc"):
        raise InvalidRequestError(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order", code="invalid_value"
        )
    return Cursor(_read_limit(), cast(Order, order), request.args.get("after"))


def _read_limit() -> int:
    text = request.args.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidRequestError(
            "Invalid type for 'limit': expected an integer, but got a string instead.",
            param="limit",
            code="invalid_type",
        )
    limit = int(text[:9])
    if limit > MAX_LIMIT:
        raise InvalidRequestError(
            f"Invalid 'limit': integer above maximum value. Expected a value <= {MAX_LIMIT}, but got {limit} instead.",
            param="limit",
            code="integer_above_max_value",
        )
    if limit < 1:
        raise InvalidRequestError(
            f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value",
        )
    return limit


def json_bytes(body: bytes) -> Response:
    """Return a response with a body that is JSON already."""
    return BytesResponse(body, 200, {})
