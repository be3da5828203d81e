"""Storage of responses, as calls of the Responses API use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openai_compat.core.errors import ObjectNotFoundError, PreviousResponseNotFoundError
from openai_compat.core.turns import TimeSlices
from openai_compat.services.conversations import Conversations
from openai_compat.services.openai_objects import to_json
from openai_compat.storage import Storage
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import INPUT, OUTPUT, NewObject

if TYPE_CHECKING:
    from openai_compat.storage.leases import Lease


@dataclass(frozen=True, slots=True)
class References:
    """What a request refers to by id."""

    previous_response_id: str | None = None
    conversation: str | None = None
    items: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != References()


@dataclass(frozen=True, slots=True)
class StoredContext:
    """What the references of a request stand for.

    `items` precede the request's own input. `referenced` has the items that the input refers to, by their ids.
    """

    items: Sequence[Mapping[str, Any]] = ()
    referenced: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ResponseStore:
    """Responses and conversations of all callers.

    Objects of other owners count as unknown. All methods raise `StorageUnavailableError`.
    """

    def __init__(self, storage: Storage, conversations: Conversations) -> None:
        self._storage = storage
        self._conversations = conversations

    def check(self) -> None:
        """Raise an error if the database does not answer."""
        self._storage.check()

    def lock(self, conversation: str, owner: str) -> Lease:
        """Reserve a conversation for one call, until the lease is released.

        Raises:
            ObjectNotFoundError, ConversationLockedError
        """
        try:
            return self._conversations.lock(owner, conversation)
        except ObjectNotFoundError:
            raise unknown_conversation(conversation) from None

    def load(self, references: References, owner: str) -> StoredContext:
        """Return what the references stand for.

        Raises:
            PreviousResponseNotFoundError, ObjectNotFoundError: an id is unknown.
        """
        items: Sequence[str] = ()
        if references.previous_response_id is not None:
            items = self._load_chain(references.previous_response_id, owner)
        elif references.conversation is not None:
            items = self._load_conversation(references.conversation, owner)
        return StoredContext([*map(_in_turns(), items)], self._load_referenced(references.items, owner))

    def save(
        self, owner: str, response: Mapping[str, Any], input_items: Sequence[Entry], previous_id: str | None
    ) -> None:
        """Keep a response that has ended, with the input that it answers."""
        body, sections = to_json(response).decode(), {INPUT: input_items, OUTPUT: to_output_entries(response)}
        new = NewObject(
            response["id"],
            body,
            response["created_at"],
            sections,
            model=response["model"],
            status=response["status"],
            previous_id=previous_id,
        )
        self._storage.responses.create(owner, new)

    def append(self, owner: str, conversation: str, entries: Sequence[Entry]) -> None:
        """Add the items of a call at the end of a conversation.

        Raises:
            InvalidRequestError: the conversation has an item with one of their ids.
        """
        self._conversations.append(owner, conversation, entries)

    def _load_chain(self, id: str, owner: str) -> Sequence[str]:
        chain = self._storage.responses.chain(owner, id)
        if chain is None or chain.missing is not None:
            raise PreviousResponseNotFoundError(id if chain is None else chain.missing or id)
        return chain.items

    def _load_conversation(self, id: str, owner: str) -> Sequence[str]:
        items = self._storage.conversations.all_items(owner, id)
        if items is None:
            raise unknown_conversation(id)
        return items

    def _load_referenced(self, ids: Sequence[str], owner: str) -> dict[str, Any]:
        found = self._storage.responses.find_items(owner, ids) if ids else {}
        for id in ids:
            if id not in found:
                raise unknown_item(id)
        load = _in_turns()
        return {id: load(body) for id, body in found.items()}


def _in_turns() -> Callable[[str], Any]:
    """Return a parser of JSON that gives other greenlets a turn between long texts."""
    return TimeSlices().checked(json.loads)


def to_output_entries(response: Mapping[str, Any]) -> list[Entry]:
    """Return the output items of a response for the store."""
    return [Entry(item["id"], to_json(item).decode()) for item in response["output"]]


def unknown_conversation(identifier: str) -> ObjectNotFoundError:
    """Return the error for an unknown conversation."""
    return ObjectNotFoundError(f"Conversation with id '{identifier}' not found.", param="conversation")


def unknown_item(identifier: str) -> ObjectNotFoundError:
    """Return the error for an item reference that leads nowhere."""
    return ObjectNotFoundError(
        f"Item with id '{identifier}' not found. Items are not persisted when `store` is set to false. "
        "Send the item itself instead of a reference.",
        param="input",
    )
