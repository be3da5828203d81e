"""Schemas of the requests for conversations and for stored chat completions.

Only types and structure are validated. Items of any type are accepted, as clients send back what a model sent them.
"""

from __future__ import annotations

from typing import Any, Final

from .base import RequestSchema, missing_error
from .fields import AnyObject, List, Nested, OneOf, String

MAX_ITEMS: Final = 20
"""Items in one request, as at OpenAI."""


class ItemSchema(RequestSchema):
    """Item of a conversation. A message needs no type."""

    type = String(description="`message`, `function_call`, `function_call_output`, `item_reference`, …")
    id = String(description="Your id of the item. If absent, the server makes one.")
    role = String(description="`user`, `assistant`, `system` or `developer`, for a message.", example="user")
    content = OneOf(
        String(), List(AnyObject()), description="A text or a list of parts, for a message.", example="Hello!"
    )
    status = String()

    def check(self, data: dict[str, Any]) -> None:
        kind = data.get("type")
        is_reference = kind == "item_reference" or (kind is None and "role" not in data and "id" in data)
        needed = ("id",) if is_reference else ("role", "content") if kind in (None, "message") else ()
        for name in needed:
            if data.get(name) is None:
                raise missing_error(name)


class ConversationSchema(RequestSchema):
    """Body of `POST /v1/conversations`."""

    items = List(Nested(ItemSchema), max_items=MAX_ITEMS, description="The first items, up to 20.")
    metadata = AnyObject(description="Up to 16 key-value pairs of your own.")


class ItemsSchema(RequestSchema):
    """Body of `POST /v1/conversations/{id}/items`."""

    items = List(Nested(ItemSchema), max_items=MAX_ITEMS, required=True, description="The items to add, up to 20.")


class MetadataSchema(RequestSchema):
    """Body of a request that replaces the metadata of an object."""

    metadata = AnyObject(
        required=True, allow_none=True, description="Up to 16 key-value pairs, which replace the present ones."
    )


CONVERSATION_REQUEST: Final = ConversationSchema()
ITEMS_REQUEST: Final = ItemsSchema()
METADATA_REQUEST: Final = MetadataSchema()
