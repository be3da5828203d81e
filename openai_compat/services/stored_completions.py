"""Stored chat completions.

A completion is stored for a call with `store: true` that this server translates. A forwarded one is the upstream's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from openai_compat.core.errors import ObjectNotFoundError
from openai_compat.core.types import JSON, CallContext
from openai_compat.storage import Storage
from openai_compat.storage.pages import Cursor, Entry, Page, UnknownCursorError
from openai_compat.storage.records import MESSAGES, NewObject

from .metadata import check_metadata, to_tags
from .openai_objects import to_json
from .owner import owner_of
from .stored_lists import raise_unknown_cursor, to_list

PREFIX: Final = "chatcmpl-"
_DEFAULTS: Final[Mapping[str, Any]] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": None,
    "tool_choice": None,
    "tools": None,
    "response_format": None,
}
"""Parameters of the request that a stored completion repeats, each with its default."""


class StoredCompletions:
    """The chat completions of each caller.

    Methods with an id raise `ObjectNotFoundError` if the caller has no such completion, and all of them
    `StorageUnavailableError`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def prepare(self, payload: Mapping[str, Any], context: CallContext) -> Callable[[JSON], None]:
        """Return a function that stores the complete answer to `payload`. Call it before the model is asked.

        Raises:
            InvalidRequestError: the metadata cannot be stored.
        """
        metadata = payload.get("metadata") or {}
        check_metadata(metadata)
        self._storage.check()
        owner = owner_of(context.caller)

        def store(completion: JSON) -> None:
            stored = _to_stored(completion, payload, metadata, context.request_id)
            messages = {MESSAGES: list(_to_messages(completion["id"], payload["messages"]))}
            body = to_json(stored).decode()
            created, model = stored["created"], stored["model"]
            new = NewObject(stored["id"], body, created, messages, model=model, tags=to_tags(metadata))
            self._storage.completions.create(owner, new)

        return store

    @property
    def has_any(self) -> bool:
        """False if nothing was ever stored here."""
        return not self._storage.is_new

    def page(self, owner: str, cursor: Cursor, model: str | None, metadata: Mapping[str, str]) -> Page:
        """Return a part of the completions of one model, or of all, with these pairs of metadata.

        Raises:
            InvalidRequestError: there is no completion `cursor.after`.
        """
        if not self.has_any:
            return Page([], has_more=False)
        try:
            return self._storage.completions.page(owner, cursor, model, to_tags(metadata))
        except UnknownCursorError:
            raise_unknown_cursor(cursor.after)

    def get(self, owner: str, id: str) -> bytes:
        """Return a completion as JSON."""
        found = self._storage.completions.get(owner, id)
        if found is None:
            raise missing_completion(id)
        return found.body.encode()

    def update(self, owner: str, id: str, metadata: Mapping[str, Any]) -> JSON:
        """Replace the metadata and return the completion.

        Raises:
            InvalidRequestError
        """
        check_metadata(metadata)
        completion: JSON = {**json.loads(self.get(owner, id)), "metadata": metadata}
        body = to_json(completion).decode()
        if not self._storage.completions.update(owner, id, body, to_tags(metadata)):
            raise missing_completion(id)
        return completion

    def delete(self, owner: str, id: str) -> JSON:
        """Delete a completion and return OpenAI's confirmation."""
        if not self._storage.completions.delete(owner, id):
            raise missing_completion(id)
        return {"object": "chat.completion.deleted", "id": id, "deleted": True}

    def messages(self, owner: str, id: str, cursor: Cursor) -> bytes:
        """Return a part of the messages that the completion answers as OpenAI's list.

        Raises:
            InvalidRequestError: the list has no message `cursor.after`.
        """
        try:
            page = self._storage.completions.page_of_items(owner, id, MESSAGES, cursor)
        except UnknownCursorError:
            raise_unknown_cursor(cursor.after)
        if page is None:
            raise missing_completion(id)
        return to_list(page)


def missing_completion(id: str) -> ObjectNotFoundError:
    """Return the error for an unknown chat completion."""
    return ObjectNotFoundError(f"Chat completion with id '{id}' not found.")


def _to_stored(completion: JSON, payload: Mapping[str, Any], metadata: Mapping[str, str], request_id: str) -> JSON:
    parameters = {name: default if payload.get(name) is None else payload[name] for name, default in _DEFAULTS.items()}
    user = payload.get("user")
    return {**completion, "request_id": request_id, "input_user": user, "metadata": metadata, **parameters}


def _to_messages(id: str, messages: list[JSON]) -> Iterator[Entry]:
    for number, message in enumerate(messages):
        content = message.get("content")
        parts = content if isinstance(content, list) else None
        stored: JSON = {
            **message,
            "id": f"{id}-{number}",
            "content": None if parts is not None else content,
            "name": message.get("name"),
            "content_parts": parts,
        }
        yield Entry(stored["id"], to_json(stored).decode())
