"""Conversations and their items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from openai_compat.core.errors import ConversationLockedError, InvalidRequestError, ObjectNotFoundError
from openai_compat.core.types import JSON
from openai_compat.storage import Storage
from openai_compat.storage.pages import Cursor, Entry, Page, UnknownCursorError
from openai_compat.storage.records import ITEMS, DuplicateItemError, NewObject

from .metadata import check_metadata
from .openai_objects import new_id, now, to_json
from .stored_items import to_entries
from .stored_lists import raise_unknown_cursor, to_list

if TYPE_CHECKING:
    from openai_compat.storage.leases import Lease

PREFIX: Final = "conv_"


class Conversations:
    """The conversations of each caller.

    Every method raises `ObjectNotFoundError` if the caller has no such conversation, and `StorageUnavailableError`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def create(self, owner: str, items: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> JSON:
        """Store a new conversation and return it.

        Raises:
            InvalidRequestError
        """
        check_metadata(metadata)
        entries = self._to_entries(owner, items)
        _check_distinct(entries)
        id, created_at = new_id(PREFIX), now()
        conversation: JSON = {"id": id, "object": "conversation", "created_at": created_at, "metadata": metadata}
        body = to_json(conversation).decode()
        self._storage.conversations.create(owner, NewObject(id, body, created_at, {ITEMS: entries}))
        return conversation

    def page(self, owner: str, cursor: Cursor) -> bytes:
        """Return a part of the caller's conversations as OpenAI's list.

        Raises:
            InvalidRequestError: the caller has no conversation `cursor.after`.
        """
        try:
            return to_list(self._storage.conversations.page(owner, cursor))
        except UnknownCursorError:
            raise_unknown_cursor(cursor.after)

    def get(self, owner: str, id: str) -> bytes:
        """Return a conversation as JSON."""
        found = self._storage.conversations.get(owner, id)
        if found is None:
            raise missing_conversation(id)
        return found.body.encode()

    def update(self, owner: str, id: str, metadata: Mapping[str, Any]) -> JSON:
        """Replace the metadata and return the conversation.

        Raises:
            InvalidRequestError
        """
        check_metadata(metadata)
        conversation: JSON = {**json.loads(self.get(owner, id)), "metadata": metadata}
        if not self._storage.conversations.update(owner, id, to_json(conversation).decode()):
            raise missing_conversation(id)
        return conversation

    def delete(self, owner: str, id: str) -> JSON:
        """Delete a conversation with its items and return OpenAI's confirmation."""
        if not self._storage.conversations.delete(owner, id):
            raise missing_conversation(id)
        return {"id": id, "object": "conversation.deleted", "deleted": True}

    def add_items(self, owner: str, id: str, items: Sequence[Mapping[str, Any]]) -> bytes:
        """Add items at the end and return them as OpenAI's list.

        Raises:
            InvalidRequestError: an item has the id of another one.
        """
        entries = self._to_entries(owner, items)
        self.append(owner, id, entries)
        return to_list(Page(entries, has_more=False))

    def append(self, owner: str, id: str, entries: Sequence[Entry]) -> None:
        """Add stored items at the end, such as the input and the output of a response.

        Raises:
            InvalidRequestError: an item has the id of another one.
        """
        try:
            is_found = self._storage.conversations.append(owner, id, entries)
        except DuplicateItemError as error:
            raise duplicate_item(error.id) from None
        if not is_found:
            raise missing_conversation(id)

    def items(self, owner: str, id: str, cursor: Cursor) -> bytes:
        """Return a part of the items as OpenAI's list.

        Raises:
            InvalidRequestError: the list has no item `cursor.after`.
        """
        try:
            page = self._storage.conversations.page_of_items(owner, id, ITEMS, cursor)
        except UnknownCursorError:
            raise_unknown_cursor(cursor.after)
        if page is None:
            raise missing_conversation(id)
        return to_list(page)

    def get_item(self, owner: str, id: str, item_id: str) -> bytes:
        """Return one item as JSON."""
        body = self._storage.conversations.get_item(owner, id, item_id)
        if body is None:
            self.get(owner, id)
            raise _missing_item(id, item_id)
        return body.encode()

    def delete_item(self, owner: str, id: str, item_id: str) -> bytes:
        """Delete one item and return the conversation as JSON."""
        is_found = self._storage.conversations.delete_item(owner, id, item_id)
        conversation = self.get(owner, id)
        if not is_found:
            raise _missing_item(id, item_id)
        return conversation

    def lock(self, owner: str, id: str) -> Lease:
        """Reserve a conversation for one call, until `release`. A crash of this process ends it within 30 seconds.

        Raises:
            ConversationLockedError
        """
        self.get(owner, id)
        lease = self._storage.leases.acquire(f"conversation:{id}")
        if lease is None:
            raise ConversationLockedError
        return lease

    def _to_entries(self, owner: str, items: Sequence[Mapping[str, Any]]) -> list[Entry]:
        return to_entries(items, lambda ids: self._storage.responses.find_items(owner, ids), "items")


def missing_conversation(id: str) -> ObjectNotFoundError:
    """Return the error for an unknown conversation."""
    return ObjectNotFoundError(f"Conversation with id '{id}' not found.")


def _missing_item(id: str, item_id: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(f"Item with id '{item_id}' not found in conversation '{id}'.")


def duplicate_item(id: str, param: str = "items") -> InvalidRequestError:
    """Return the error for an item whose id another item of the conversation has."""
    return InvalidRequestError(f"Duplicate item found with id '{id}'.", param=param, code="duplicate_item")


def _check_distinct(entries: Sequence[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise duplicate_item(entry.id)
        seen.add(entry.id)
