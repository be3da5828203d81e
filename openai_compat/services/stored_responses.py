"""Stored responses and their input items."""

from __future__ import annotations

from typing import Final

from openai_compat.core.errors import ObjectNotFoundError
from openai_compat.core.types import JSON, CallContext
from openai_compat.storage import Storage
from openai_compat.storage.pages import Cursor, UnknownCursorError
from openai_compat.storage.records import INPUT, StoredObject

from .event_stream import EventStream
from .responses.store import ResponseStore
from .stored_lists import raise_unknown_cursor, to_list

PREFIX: Final = "resp_"


class StoredResponses:
    """The responses of each caller."""

    def __init__(self, storage: Storage, store: ResponseStore) -> None:
        self._storage = storage
        self._store = store

    def get(self, owner: str, id: str) -> bytes:
        """Return a response as JSON.

        Raises:
            ObjectNotFoundError, StorageUnavailableError, as all methods do.
        """
        return _body_of(self._store.find(owner, id), id)

    def cancel(self, owner: str, id: str) -> bytes:
        """End a background response and return it as JSON. One that has ended is returned as it is.

        Raises:
            InvalidRequestError: it is no background response.
        """
        return _body_of(self._store.cancel(owner, id), id)

    def follow(self, owner: str, id: str, after: int, context: CallContext) -> EventStream:
        """Return the events of a background response after a sequence number, up to its end.

        Raises:
            ObjectNotFoundError: also if the response has no events.
        """
        self.get(owner, id)
        if not self._store.has_events(owner, id):
            raise missing_events(id)
        return self._store.follow(owner, id, after, context)

    def delete(self, owner: str, id: str) -> JSON:
        """Delete a response and return OpenAI's confirmation."""
        if not self._storage.responses.delete(owner, id):
            raise missing_response(id)
        return {"id": id, "object": "response", "deleted": True}

    def input_items(self, owner: str, id: str, cursor: Cursor) -> bytes:
        """Return a part of the response's input items as OpenAI's list.

        Raises:
            InvalidRequestError: the list has no item `cursor.after`.
        """
        try:
            page = self._storage.responses.page_of_items(owner, id, INPUT, cursor)
        except UnknownCursorError:
            raise_unknown_cursor(cursor.after)
        if page is None:
            raise missing_response(id)
        return to_list(page)


def _body_of(found: StoredObject | None, id: str) -> bytes:
    if found is None:
        raise missing_response(id)
    return found.body.encode()


def missing_response(id: str) -> ObjectNotFoundError:
    """Return the error for an unknown response."""
    return ObjectNotFoundError(f"Response with id '{id}' not found.")


def missing_events(id: str) -> ObjectNotFoundError:
    """Return the error for a response whose events are not stored."""
    return ObjectNotFoundError(
        f"Response with id '{id}' was not created with 'background' and 'stream', so its events are not available.",
        param="stream",
    )
