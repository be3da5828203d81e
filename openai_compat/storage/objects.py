"""Objects of all kinds, with their items, in the database. Every access names the owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Connection, Row, Select, case, delete, insert, select, true, update
from sqlalchemy.engine import CursorResult

from .database import LARGE_BYTES, Database
from .insertion import to_rows
from .pages import Cursor, Entry, Page, UnknownCursorError
from .records import NewObject, StoredObject, is_valid_id
from .tables import body_of, items, objects, tags

# SQLAlchemy compiles a statement once and finds it again by its parts, which costs less for one that exists already.
_SELECT_OBJECT: Select[Any] = select(*(column for column in objects.c if column.name != "body"), body_of(objects))
_SELECT_SMALL_OBJECT: Select[Any] = _SELECT_OBJECT.with_only_columns(
    *(column for column in objects.c if column.name != "body"),
    case((objects.c.size < LARGE_BYTES, body_of(objects).element)).label("body"),
)
"""As `_SELECT_OBJECT`, without the body of a large object."""
_INSERT_ITEMS = insert(items)
_INSERT_TAGS = insert(tags)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Rule by which objects expire, `seconds` after their last change. With 0 they never do."""

    seconds: float = 0.0
    clock: Callable[[], float] = time

    def now(self) -> int:
        return int(self.clock())

    def is_alive(self) -> ColumnElement[bool]:
        """Return the condition that an object has not expired."""
        return objects.c.used_at > self.clock() - self.seconds if self.seconds else true()


class ObjectStore:
    """Store of the objects of one kind."""

    kind: ClassVar[str]

    def __init__(self, database: Database, lifetime: Lifetime, on_write: Callable[[], None]) -> None:
        """Call `on_write` after each write, which lets the expiry run."""
        self._database = database
        self._lifetime = lifetime
        self._on_write = on_write

    def create(self, owner: str, new: NewObject) -> None:
        """Store an object with its items.

        Raises:
            StorageUnavailableError, which all methods raise.
        """
        self._database.insert(to_rows(owner, self.kind, self._lifetime.now(), new))
        self._on_write()

    def get(self, owner: str, id: str) -> StoredObject | None:
        """Return an object, or None if the owner has none with this id. A large one is read once its size is known."""
        found = self._database.read(lambda connection: self._find(connection, owner, id, _SELECT_SMALL_OBJECT))
        if found is not None and found.body is None:
            found = self._database.read(lambda connection: self._find(connection, owner, id), found.size)
        return found and _to_object(found)

    def delete(self, owner: str, id: str) -> bool:
        """Delete an object with its items. Return False if the owner has none with this id."""
        if not is_valid_id(id):
            return False
        statement = delete(objects).where(*self._is(owner, id))
        return bool(self._database.write(lambda connection: _count(connection.execute(statement))))

    def page_of_items(self, owner: str, id: str, section: str, cursor: Cursor) -> Page | None:
        """Return a part of one list of items, or None if the owner has no such object.

        Raises:
            UnknownCursorError
        """

        def work(connection: Connection) -> Page | None:
            found = self._find(connection, owner, id)
            return found and _page_of_items(connection, found.number, section, cursor)

        return self._database.read(work)

    def _page(self, owner: str, cursor: Cursor, *wanted: ColumnElement[bool]) -> Page:
        """Return a part of the owner's objects that meet the conditions `wanted`, in the order of their creation.

        Raises:
            UnknownCursorError
        """
        own = self._is_of(owner)

        def work(connection: Connection) -> Page:
            start = _start_of_objects(connection, own, cursor)
            statement = select(objects.c.id, body_of(objects)).where(*own, *wanted)
            return _to_page(connection, statement, objects.c.number, start, cursor)

        return self._database.read(work)

    def _is_of(self, owner: str) -> Sequence[ColumnElement[bool]]:
        """Return the conditions for the objects of an owner."""
        return objects.c.owner == owner, objects.c.kind == self.kind, self._lifetime.is_alive()

    def _is(self, owner: str, id: str) -> Sequence[ColumnElement[bool]]:
        """Return the conditions for one object."""
        return objects.c.id == id, *self._is_of(owner)

    def _find(
        self,
        connection: Connection,
        owner: str,
        id: str,
        statement: Select[Any] = _SELECT_OBJECT,
        *,
        for_update: bool = False,
    ) -> Row[Any] | None:
        """Return an object's row. `for_update` locks it, where the database does not lock as a whole."""
        if not is_valid_id(id):
            return None
        own = statement.where(*self._is(owner, id))
        return connection.execute(own.with_for_update() if for_update else own).one_or_none()

    def _touch(self, connection: Connection, number: int, *, grown_by: int, **values: Any) -> None:
        """Change an object's row. The object is used from now on, and its size changes by `grown_by`."""
        statement = update(objects).where(objects.c.number == number)
        connection.execute(statement.values(used_at=self._lifetime.now(), size=objects.c.size + grown_by, **values))


def insert_items(
    connection: Connection, number: int, section: str, entries: Sequence[Entry], first_position: int = 0
) -> None:
    """Append items to a list, from `first_position` on."""
    rows = [
        {
            "object_number": number,
            "section": section,
            "position": position,
            "item_id": entry.id,
            "body": entry.body,
        }
        for position, entry in enumerate(entries, first_position)
    ]
    if rows:
        connection.execute(_INSERT_ITEMS, rows)


def insert_tags(connection: Connection, number: int, pairs: Mapping[str, str]) -> None:
    """Store the metadata by which objects are found."""
    rows = [{"object_number": number, "key": key, "value": value} for key, value in pairs.items()]
    if rows:
        connection.execute(_INSERT_TAGS, rows)


def _page_of_items(connection: Connection, number: int, section: str, cursor: Cursor) -> Page:
    own = (items.c.object_number == number, items.c.section == section)
    start = None
    if cursor.after is not None:
        is_after = items.c.item_id == cursor.after
        start = _start(connection, select(items.c.position).where(*own, is_after), cursor.after)
    return _to_page(connection, select(items.c.item_id, body_of(items)).where(*own), items.c.position, start, cursor)


def _start(connection: Connection, statement: Select[Any], id: str) -> int:
    found: int | None = connection.execute(statement).scalar() if is_valid_id(id) else None
    if found is None:
        raise UnknownCursorError
    return found


def _start_of_objects(connection: Connection, own: Sequence[ColumnElement[bool]], cursor: Cursor) -> int | None:
    """Return the number of the object after which a page of objects starts."""
    if cursor.after is None:
        return None
    return _start(connection, select(objects.c.number).where(*own, objects.c.id == cursor.after), cursor.after)


def _to_page(
    connection: Connection, statement: Select[Any], position: ColumnElement[int], start: int | None, cursor: Cursor
) -> Page:
    """Return the page of the rows of `statement`, ids with bodies, after the row at the position `start`."""
    is_ascending = cursor.order == "asc"
    if start is not None:
        statement = statement.where(position > start if is_ascending else position < start)
    ordered = statement.order_by(position if is_ascending else position.desc()).limit(cursor.limit + 1)
    rows = connection.execute(ordered).all()
    return Page([Entry(id, body) for id, body in rows[: cursor.limit]], len(rows) > cursor.limit)


def _to_object(row: Row[Any]) -> StoredObject:
    return StoredObject(row.id, row.body, row.created_at, row.status, row.previous_id, row.is_background)


def _count(result: CursorResult[Any]) -> int:
    return result.rowcount
