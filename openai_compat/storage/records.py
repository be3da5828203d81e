"""Values that the stores take and return, without a dependency on the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .pages import Entry

INPUT: Final = "input"
OUTPUT: Final = "output"
ITEMS: Final = "items"
MESSAGES: Final = "messages"
"""Lists of items of an object. A response has `INPUT` and `OUTPUT`, a conversation `ITEMS`, a completion `MESSAGES`."""
MAX_ID_LENGTH: Final = 512


class DuplicateItemError(Exception):
    """The conversation has an item with this id already."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to store. `body` is its JSON, `sections` are its lists of items, `tags` its filterable metadata."""

    id: str
    body: str
    created_at: int
    sections: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    model: str | None = None
    status: str | None = None
    previous_id: str | None = None
    is_background: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was stored. `body` is its JSON."""

    id: str
    body: str
    created_at: int
    status: str | None
    previous_id: str | None
    is_background: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """Context of a response, which are the items of all responses before it and its own, as JSON.

    `missing` is the id of an earlier response that was deleted or has expired, so that the context is incomplete.
    `status` is that of the response itself.
    """

    items: Sequence[str]
    missing: str | None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which calls are added up, in buckets of `width` seconds from `start` until before `end`.

    `group_by` and the names of `filters` are columns of the rows. A filter has the values that it lets through.
    """

    start: int
    end: int
    width: int
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it needs besides time and sums."""
        return frozenset((*self.group_by, *self.filters))


def is_valid_id(text: object) -> bool:
    """Return True if `text` can be the id of an item. PostgreSQL refuses some characters, and no client sends them."""
    return isinstance(text, str) and 0 < len(text) <= MAX_ID_LENGTH and text.isprintable() and text.isascii()


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls of the log are meant. None stands for all."""

    key_id: str | None = None
    model: str | None = None
    is_failed: bool | None = None
