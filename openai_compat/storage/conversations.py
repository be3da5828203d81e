"""Store of conversations and their items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from .objects import ObjectStore, insert_items
from .pages import Cursor, Entry, Page
from .records import ITEMS, DuplicateItemError, is_valid_id
from .tables import body_of, items


class ConversationStore(ObjectStore):
    """Conversations, whose items keep the order in which they were added."""

    kind = "conversation"

    def page(self, owner: str, cursor: Cursor) -> Page:
        """Return a part of the owner's conversations in the order of their creation.

        Raises:
            UnknownCursorError
        """
        return self._page(owner, cursor)

    def update(self, owner: str, id: str, body: str) -> bool:
        """Replace the conversation's object. Return False if the owner has no such conversation."""

        def work(connection: Connection, row: Row[Any]) -> bool:
            self._touch(connection, row.number, grown_by=len(body) - len(row.body), body=body)
            return True

        return bool(self._change(owner, id, work))

    def append(self, owner: str, id: str, entries: Sequence[Entry]) -> bool:
        """Add items at the end, all or none. Return False if the owner has no such conversation.

        Raises:
            DuplicateItemError
        """

        size = sum(len(entry.body) for entry in entries)

        def work(connection: Connection, row: Row[Any]) -> bool:
            _check_duplicates(connection, row.number, entries)
            last = select(func.max(items.c.position)).where(*_is_item_of(row.number))
            position = connection.execute(last).scalar()
            insert_items(connection, row.number, ITEMS, entries, 0 if position is None else position + 1)
            self._touch(connection, row.number, grown_by=size)
            return True

        return bool(self._change(owner, id, work, size))

    def all_items(self, owner: str, id: str) -> list[str] | None:
        """Return the bodies of all items in order, or None if the owner has no such conversation."""

        def work(connection: Connection) -> list[str] | None:
            row = self._find(connection, owner, id)
            if row is None:
                return None
            statement = select(body_of(items)).where(*_is_item_of(row.number)).order_by(items.c.position)
            return list(connection.execute(statement).scalars())

        return self._database.read(work)

    def get_item(self, owner: str, id: str, item_id: str) -> str | None:
        """Return the body of one item, or None if the owner has no such item."""

        def work(connection: Connection) -> str | None:
            row = self._find(connection, owner, id)
            return row and _item(connection, row.number, item_id)

        return self._database.read(work) if is_valid_id(item_id) else None

    def delete_item(self, owner: str, id: str, item_id: str) -> bool:
        """Delete one item. Return False if the owner has no such item."""

        def work(connection: Connection, row: Row[Any]) -> bool:
            body = _item(connection, row.number, item_id)
            if body is None:
                return False
            connection.execute(delete(items).where(*_is_item_of(row.number), items.c.item_id == item_id))
            self._touch(connection, row.number, grown_by=-len(body))
            return True

        return bool(is_valid_id(item_id) and self._change(owner, id, work))

    def _change(self, owner: str, id: str, work: Any, size: int = 0) -> Any:
        """Run `work` with the conversation's row, which no other call can change meanwhile. Return None without one."""

        def change(connection: Connection) -> Any:
            row = self._find(connection, owner, id, for_update=True)
            return row and work(connection, row)

        result = self._database.write(change, size)
        self._on_write()
        return result


def _is_item_of(number: int) -> tuple[Any, ...]:
    return items.c.object_number == number, items.c.section == ITEMS


def _item(connection: Connection, number: int, item_id: str) -> str | None:
    statement = select(body_of(items)).where(*_is_item_of(number), items.c.item_id == item_id)
    return connection.execute(statement).scalars().first()


def _check_duplicates(connection: Connection, number: int, entries: Sequence[Entry]) -> None:
    ids = [entry.id for entry in entries]
    known = select(items.c.item_id).where(*_is_item_of(number), items.c.item_id.in_(ids))
    seen = set(connection.execute(known).scalars())
    for id in ids:
        if id in seen:
            raise DuplicateItemError(id)
        seen.add(id)


class PipelineConversationStore(ConversationStore):
    """Messages of callers who send a conversation id to a pipeline. Each conversation has an owner of its own."""

    kind = "pipeline_conversation"
