"""Storage of responses, as calls of the Responses API use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from openai_compat.core.errors import (
    InvalidRequestError,
    ObjectNotFoundError,
    OpenAICompatError,
    PreviousResponseNotFoundError,
    ServerShuttingDownError,
)
from openai_compat.core.turns import TimeSlices
from openai_compat.core.types import JSON, CallContext
from openai_compat.services.conversations import Conversations
from openai_compat.services.openai_objects import to_json
from openai_compat.services.sse_events import split_events
from openai_compat.storage import Storage
from openai_compat.storage.pages import Entry
from openai_compat.storage.records import INPUT, OUTPUT, NewObject, StoredObject

from .lifecycle import Lifecycle
from .objects import to_failed
from .stored_events import StoredEvents

if TYPE_CHECKING:
    from openai_compat.storage.leases import Lease


ACTIVE: Final = ("queued", "in_progress")
"""Statuses of a background response that has not ended."""


def lease_name(id: str) -> str:
    """Return the name of the lease of a background response."""
    return f"response:{id}"


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

    @property
    def is_read_only(self) -> bool:
        """True if nothing can be stored, because the data directory cannot be written."""
        return self._storage.is_read_only

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
        self,
        owner: str,
        response: Mapping[str, Any],
        body: bytes,
        input_items: Sequence[Entry],
        previous_id: str | None,
    ) -> None:
        """Keep a response, whose JSON is `body`, with the input that it answers."""
        new = NewObject(
            response["id"],
            body.decode(),
            response["created_at"],
            {INPUT: input_items, OUTPUT: to_output_entries(response)},
            model=response["model"],
            status=response["status"],
            previous_id=previous_id,
            is_background=response["background"],
        )
        self._storage.responses.create(owner, new)

    def append(self, owner: str, conversation: str, entries: Sequence[Entry]) -> None:
        """Add the items of a call at the end of a conversation.

        Raises:
            InvalidRequestError: the conversation has an item with one of their ids.
        """
        self._conversations.append(owner, conversation, entries)

    def reserve(self, id: str) -> Lease:
        """Return the lease that shows that a background response is being worked on."""
        lease = self._storage.leases.acquire(lease_name(id))
        assert lease is not None  # noqa: S101 - the id is new
        return lease

    def proceed(self, owner: str, response: Mapping[str, Any], events: Sequence[tuple[int, str]] = ()) -> bool:
        """Replace a background response and add events. Return False if it has ended already or was deleted."""
        return self._storage.responses.update(
            owner,
            response["id"],
            body=to_json(response).decode(),
            status=response["status"],
            output=to_output_entries(response),
            if_status=ACTIVE,
            new_events=events,
        )

    def add_events(self, owner: str, id: str, events: Sequence[tuple[int, str]]) -> None:
        """Store events of a background response, if it was not deleted."""
        self._storage.responses.append_events(owner, id, events)

    def find(self, owner: str, id: str) -> StoredObject | None:
        """Return a response. A background response whose worker was killed is marked as failed before."""
        found = self._storage.responses.get(owner, id)
        if found is None or found.status not in ACTIVE or self._storage.leases.is_held(lease_name(id)):
            return found
        error = ServerShuttingDownError()
        last = self._storage.responses.last_event(owner, id)
        response = json.loads(found.body)
        events = [] if last is None else _failure_events(response, last, error)
        self.proceed(owner, to_failed(response, error), events)
        return self._storage.responses.get(owner, id)

    def cancel(self, owner: str, id: str) -> StoredObject | None:
        """Return a background response that has ended, now or before, or None if the owner has none with this id.

        Raises:
            InvalidRequestError: it is no background response.
        """
        found = self.find(owner, id)
        if found is None:
            return None
        if not found.is_background:
            raise InvalidRequestError("Cannot cancel a synchronous response.")
        if found.status not in ACTIVE:
            return found
        self.proceed(owner, {**json.loads(found.body), "status": "cancelled"})
        return self._storage.responses.get(owner, id)

    def has_events(self, owner: str, id: str) -> bool:
        """Return True if the response was created with `background` and `stream`."""
        return self._storage.responses.last_event(owner, id) is not None

    def follow(self, owner: str, id: str, after: int, context: CallContext) -> StoredEvents:
        """Return the events of a background response after a sequence number, up to its end."""
        return StoredEvents(
            lambda last, limit: self._storage.responses.events_after(owner, id, last, limit),
            lambda: self._is_active(owner, id),
            after,
            context.cancellation,
            context.heartbeat_interval,
        )

    def _is_active(self, owner: str, id: str) -> bool:
        found = self.find(owner, id)
        return found is not None and found.status in ACTIVE

    def active_among(self, ids: Collection[str]) -> set[str]:
        """Return the ids of background responses that have not ended."""
        return self._storage.responses.with_status(ids, ACTIVE)

    def _load_chain(self, id: str, owner: str) -> Sequence[str]:
        chain = self._storage.responses.chain(owner, id)
        if chain is None or chain.missing is not None:
            raise PreviousResponseNotFoundError(id if chain is None else chain.missing or id)
        if chain.status in ACTIVE:
            raise InvalidRequestError(
                f"Previous response with id '{id}' is not complete yet.", param="previous_response_id"
            )
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


def _failure_events(response: JSON, last: int, error: OpenAICompatError) -> list[tuple[int, str]]:
    """Return the events that end the stream of a response, after the one with the number `last`."""
    lifecycle = Lifecycle(response, begins_early=False)
    lifecycle.adopt(response, last)
    return list(enumerate((event.decode() for event in split_events(lifecycle.fail(error))), last + 1))


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
