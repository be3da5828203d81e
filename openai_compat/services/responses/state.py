"""State of one call, which is what it reads from the store, holds there and keeps there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from openai_compat.accounts.call_size import tokens_of_items
from openai_compat.core.errors import InvalidRequestError, OpenAICompatError, RequestError, StorageUnavailableError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import Usage
from openai_compat.services.conversations import duplicate_item
from openai_compat.services.event_stream import EventStream
from openai_compat.services.metadata import check_metadata
from openai_compat.services.request_fields import object_at, text_at
from openai_compat.services.stored_items import to_entries
from openai_compat.storage.pages import Entry

from .items import is_reference, to_input_items
from .store import References, ResponseStore, StoredContext, to_output_entries

if TYPE_CHECKING:
    from openai_compat.storage.leases import Lease

_OWN_ID: Final = re.compile(r"[a-z]+_[0-9a-f]{32}")
"""Ids of this server. Those of OpenAI are longer."""


NOT_STORED: Final = {"store": "false"}
"""Adaptation of a call that names no `store`, on a server that can store nothing."""


class CallState:
    """State of one call. `release` ends it on every path. A call that `only_reads` does not lock its conversation.

    Properties are read from the store at their first use, and raise:
        RequestError: an id is unknown, the conversation is locked, or the request names two contexts.
        StorageUnavailableError
    """

    def __init__(
        self, store: ResponseStore, payload: Mapping[str, Any], owner: str, *, only_reads: bool = False
    ) -> None:
        wanted = payload.get("store")
        is_impossible = wanted is None and store.is_read_only
        self.is_stored = wanted is not False and not is_impossible
        self.adaptations: Mapping[str, str] = NOT_STORED if is_impossible else {}
        self._store = store
        self._payload = payload
        self.owner = owner
        self._only_reads = only_reads
        self._lease: Lease | None = None

    def stored_tokens(self, *, may_forward: bool) -> int:
        """Return an estimate of the tokens of the stored items that the call repeats.

        It is 0 if an upstream has them, and if they cannot be read, which fails the call once it is admitted.
        """
        if not (self._may_be_own() or (not may_forward and any(self._ids()))):
            return 0
        found = self._found
        return (
            0 if isinstance(found, OpenAICompatError) else tokens_of_items([*found.items, *found.referenced.values()])
        )

    @property
    def is_locked(self) -> bool:
        """True while the call holds its conversation."""
        return self._lease is not None

    @property
    def stored(self) -> Sequence[Mapping[str, Any]]:
        """The items that precede the input."""
        return self._context.items

    @cached_property
    def input(self) -> list[Any]:
        """The input items, with those that references stand for."""
        found = self._context.referenced
        return [found[item["id"]] if is_reference(item) else item for item in self._items]

    def uses_own_objects(self) -> bool:
        """Return True if the request refers to objects that are stored here, and not at an upstream.

        An id of this server's form that is unknown here may come from an upstream of the same kind.
        """
        if not self._may_be_own():
            return False
        try:
            return bool(self._context)
        except RequestError as error:
            if error.code == "conversation_locked":
                raise
            return False

    def prepare(self) -> None:
        """Check what is to be kept, before the model is asked.

        Raises:
            InvalidRequestError: the metadata or an item cannot be stored. StorageUnavailableError
        """
        if self.is_stored:
            check_metadata(self._payload.get("metadata") or {})
            self._check_duplicates(self._entries)
            self._store.check()

    def keep(self, response: Mapping[str, Any], body: bytes) -> None:
        """Store the response, and give the conversation back before the client can see the end of the answer.

        `body` is the response as JSON, as the client gets it.

        Raises:
            InvalidRequestError, ObjectNotFoundError: the conversation was changed or deleted meanwhile.
            StorageUnavailableError
        """
        if self.is_stored:
            self.save(response, body)
            self.append(response)
        self.release()

    def save(self, response: Mapping[str, Any], body: bytes) -> None:
        """Store the response, which may be one that has only begun."""
        self._store.save(self.owner, response, body, self._entries, self._references.previous_response_id)

    def append(self, response: Mapping[str, Any]) -> None:
        """Add the input and the output to the conversation, if the call has one."""
        if (conversation := self._references.conversation) is not None:
            self._store.append(self.owner, conversation, [*self._entries, *to_output_entries(response)])

    def release_request(self) -> None:
        """Forget the request. What `keep` needs of it was read by `prepare`."""
        self._payload = {}
        for name in ("input", "_items", "_found"):
            self.__dict__.pop(name, None)

    def release(self) -> None:
        """Give the conversation back."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    @cached_property
    def _items(self) -> Sequence[Any]:
        items = to_input_items(self._payload.get("input"))
        for index, item in enumerate(items):
            at = f"input[{index}]"
            if object_at(item, at).get("type") is not None:
                text_at(item, "type", at)
        return items

    @cached_property
    def _references(self) -> References:
        conversation = self._payload.get("conversation")
        identifier = text_at(conversation, "id", "conversation") if isinstance(conversation, dict) else conversation
        previous = self._payload.get("previous_response_id")
        if previous is not None and identifier is not None:
            raise InvalidRequestError(
                "The parameters 'previous_response_id' and 'conversation' cannot be used together.",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        named = tuple(text_at(item, "id", f"input[{at}]") for at, item in enumerate(self._items) if is_reference(item))
        return References(previous, identifier, named)

    @property
    def _context(self) -> StoredContext:
        if isinstance(self._found, OpenAICompatError):
            raise self._found
        return self._found

    @cached_property
    def _found(self) -> StoredContext | OpenAICompatError:
        """What the references stand for, or the error of reading it. It is read once, before the call is admitted."""
        try:
            return self._read_context()
        except (RequestError, StorageUnavailableError) as error:
            return error

    def _read_context(self) -> StoredContext:
        references = self._references
        if not references:
            return StoredContext()
        if references.conversation is not None and not self._only_reads:
            self._lease = self._store.lock(references.conversation, self.owner)
        return self._store.load(references, self.owner)

    @cached_property
    def _entries(self) -> list[Entry]:
        """The input items for the store, each with an id."""
        return to_entries(self.input, lambda _: {}, "input")

    def _check_duplicates(self, entries: Sequence[Entry]) -> None:
        """Raise an error if two items of the input have the same id, or one is in the conversation already."""
        seen = set() if self._references.conversation is None else {item["id"] for item in self.stored}
        for entry in entries:
            if entry.id in seen:
                raise duplicate_item(entry.id, "input")
            seen.add(entry.id)

    def _may_be_own(self) -> bool:
        return any(isinstance(id, str) and _OWN_ID.fullmatch(id) for id in self._ids())

    def _ids(self) -> Iterator[Any]:
        """Yield the ids that the request refers to, of any type."""
        conversation, items = self._payload.get("conversation"), self._payload.get("input")
        yield self._payload.get("previous_response_id")
        yield conversation.get("id") if isinstance(conversation, dict) else conversation
        if isinstance(items, list):
            yield from (item.get("id") for item in items if is_reference(item))


class LockedStream(EventStream):
    """The stream of a call that holds a conversation until its end."""

    def __init__(self, stream: EventStream, state: CallState) -> None:
        self.headers = stream.headers
        self._stream = stream
        self._state = state

    @property
    def usage(self) -> Usage | None:
        return self._stream.usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return iter(self._stream)

    def close(self) -> None:
        try:
            self._stream.close()
            self.failure = self._stream.failure
        finally:
            self._state.release()
