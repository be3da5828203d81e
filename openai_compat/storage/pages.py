"""Cursor pagination of lists, as in OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Part of a list that a client asks for, at most `limit` entries after the one with the id `after`."""

    limit: int
    order: Order
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An item or an object. `body` is its JSON."""

    id: str
    body: str


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a list. `has_more` is True if others follow them."""

    entries: Sequence[Entry]
    has_more: bool


class UnknownCursorError(Exception):
    """The list has no entry with the id `after`."""
