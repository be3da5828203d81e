"""Store of responses, with their input and output items and the events of background streams."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select
from sqlalchemy.sql.selectable import CTE

from .objects import ObjectStore, insert_items
from .pages import Entry
from .records import INPUT, OUTPUT, Chain, is_valid_id
from .tables import body_of, events, items, objects


class ResponseStore(ObjectStore):
    """Responses. Their items are addressable by id, also those of other kinds of objects."""

    kind = "response"

    def update(
        self,
        owner: str,
        id: str,
        *,
        body: str,
        status: str,
        output: Sequence[Entry],
        if_status: Collection[str] = (),
        new_events: Sequence[tuple[int, str]] = (),
    ) -> bool:
        """Replace a response and its output, and add events, as a background response does when it proceeds.

        Return False if the owner has no such response, or its status is not in `if_status`. With that, the first of
        cancellation and completion wins.
        """

        size = len(body) + sum(len(entry.body) for entry in output)

        def work(connection: Connection) -> bool:
            row = self._find(connection, owner, id, for_update=True)
            if row is None or (if_status and row.status not in if_status):
                return False
            old = connection.execute(
                select(func.coalesce(func.sum(func.length(items.c.body)), 0)).where(*_is_output(row.number))
            ).scalar_one()
            connection.execute(delete(items).where(*_is_output(row.number)))
            insert_items(connection, row.number, OUTPUT, output)
            grown_by = size - len(row.body) - old
            grown_by += _insert_events(connection, row.number, new_events)
            self._touch(connection, row.number, grown_by=grown_by, body=body, status=status)
            return True

        is_updated = self._database.write(work, size)
        self._on_write()
        return is_updated

    def chain(self, owner: str, id: str) -> Chain | None:
        """Return the context of a response, or None if the owner has no such response."""
        if not is_valid_id(id):
            return None

        def work(connection: Connection) -> Chain | None:
            links = self._links(owner, id)
            rows = connection.execute(select(links.c.previous_id, links.c.status).order_by(links.c.depth.desc())).all()
            if not rows:
                return None
            in_order = (links.c.depth.desc(), items.c.section, items.c.position)
            joined = select(body_of(items)).join(links, items.c.object_number == links.c.number)
            bodies = connection.execute(joined.where(items.c.section.in_((INPUT, OUTPUT))).order_by(*in_order))
            return Chain(list(bodies.scalars()), rows[0].previous_id, rows[-1].status)

        return self._database.read(work)

    def find_items(self, owner: str, ids: Collection[str]) -> dict[str, str]:
        """Return the bodies of the owner's items by id. Unknown ids are left out."""
        wanted = [id for id in ids if is_valid_id(id)]
        joined = select(items.c.item_id, body_of(items)).join(objects, items.c.object_number == objects.c.number)
        statement = joined.where(items.c.item_id.in_(wanted), objects.c.owner == owner, self._lifetime.is_alive())
        ordered = statement.order_by(objects.c.number)
        return self._database.read(lambda connection: {row.item_id: row.body for row in connection.execute(ordered)})

    def append_events(self, owner: str, id: str, new: Sequence[tuple[int, str]]) -> bool:
        """Store events of a stream by sequence number. Return False if the owner has no such response."""

        def work(connection: Connection) -> bool:
            row = self._find(connection, owner, id)
            if row is None:
                return False
            self._touch(connection, row.number, grown_by=_insert_events(connection, row.number, new))
            return True

        return self._database.write(work)

    def events_after(self, owner: str, id: str, sequence_number: int, limit: int) -> list[tuple[int, str]] | None:
        """Return up to `limit` events after a sequence number, or None if the owner has no such response."""

        def work(connection: Connection) -> list[tuple[int, str]] | None:
            row = self._find(connection, owner, id)
            if row is None:
                return None
            own = (events.c.object_number == row.number, events.c.sequence_number > sequence_number)
            statement = select(events.c.sequence_number, body_of(events)).where(*own).order_by(events.c.sequence_number)
            return [(number, body) for number, body in connection.execute(statement.limit(limit))]

        return self._database.read(work)

    def last_event(self, owner: str, id: str) -> int | None:
        """Return the highest sequence number of the events, or None if there are none."""
        own = select(func.max(events.c.sequence_number)).join(objects, events.c.object_number == objects.c.number)
        statement = own.where(*self._is(owner, id))
        return self._database.read(lambda connection: connection.execute(statement).scalar())

    def with_status(self, ids: Collection[str], statuses: Collection[str]) -> set[str]:
        """Return the ids, among those of any owners, of responses with one of the statuses."""
        statement = select(objects.c.id).where(objects.c.id.in_(ids), objects.c.status.in_(statuses))
        return self._database.read(lambda connection: set(connection.execute(statement).scalars()))

    def _links(self, owner: str, id: str) -> CTE:
        """Return the response and all before it, each with its distance (`depth`)."""
        columns = (objects.c.number, objects.c.previous_id, objects.c.status)
        links = select(*columns, literal(0).label("depth")).where(*self._is(owner, id)).cte("links", recursive=True)
        is_own = (objects.c.owner == owner, objects.c.kind == self.kind, self._lifetime.is_alive())
        earlier = select(*columns, (links.c.depth + 1).label("depth")).where(
            objects.c.id == links.c.previous_id, *is_own
        )
        return links.union_all(earlier)


def _insert_events(connection: Connection, number: int, new: Sequence[tuple[int, str]]) -> int:
    """Store events and return their size."""
    rows = [{"object_number": number, "sequence_number": at, "body": body} for at, body in new]
    if rows:
        connection.execute(insert(events), rows)
    return sum(len(body) for _, body in new)


def _is_output(number: int) -> tuple[Any, ...]:
    return items.c.object_number == number, items.c.section == OUTPUT
