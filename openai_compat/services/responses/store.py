"""The seam between the Responses API and the storage of responses, items and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from openai_compat.core.errors import InvalidRequestError, ObjectNotFoundError


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


class ResponseStore(Protocol):
    """A store of responses.

    `owner` is the caller's credential, or None. Objects of other owners count as unknown.
    """

    @property
    def is_available(self) -> bool:
        """True if responses are stored. A response says so in its field `store`."""

    def load_context(self, references: References, owner: str | None) -> StoredContext:
        """Return what the references stand for.

        Raises:
            InvalidRequestError, ObjectNotFoundError: an id is unknown.
        """

    def save(self, response: Mapping[str, Any], input_items: Sequence[Any], owner: str | None) -> None:
        """Keep a response that has ended and the input that it answers. Called before the client sees its end."""


class NoResponseStore:
    """A store that keeps nothing, so that every id is unknown."""

    is_available = False

    def load_context(self, references: References, owner: str | None) -> StoredContext:
        """Raise the error for the first reference.

        Raises:
            InvalidRequestError, ObjectNotFoundError
        """
        if references.previous_response_id is not None:
            raise unknown_response(references.previous_response_id)
        if references.conversation is not None:
            raise unknown_conversation(references.conversation)
        if references.items:
            raise unknown_item(references.items[0])
        return StoredContext()

    def save(self, response: Mapping[str, Any], input_items: Sequence[Any], owner: str | None) -> None:
        """Do nothing."""


def unknown_response(identifier: str) -> InvalidRequestError:
    """Return the error for an unknown `previous_response_id`. It has the status 400, which clients expect."""
    return InvalidRequestError(
        f"Previous response with id '{identifier}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


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
