"""Store of chat completions, with the messages that they answer."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, delete, exists, select

from .objects import ObjectStore, insert_tags
from .pages import Cursor, Page
from .tables import objects, tags


class CompletionStore(ObjectStore):
    """Chat completions, listed in the order of their creation."""

    kind = "chat.completion"

    def page(self, owner: str, cursor: Cursor, model: str | None, metadata: Mapping[str, str]) -> Page:
        """Return a part of the owner's completions, of one model and with all pairs of `metadata` if given.

        Raises:
            UnknownCursorError
        """
        of_model = [objects.c.model == model] if model is not None else []
        return self._page(owner, cursor, *of_model, *map(_has_tag, metadata.items()))

    def update(self, owner: str, id: str, body: str, metadata: Mapping[str, str]) -> bool:
        """Replace a completion and its metadata. Return False if the owner has no such completion."""

        def work(connection: Connection) -> bool:
            row = self._find(connection, owner, id, for_update=True)
            if row is None:
                return False
            connection.execute(delete(tags).where(tags.c.object_number == row.number))
            insert_tags(connection, row.number, metadata)
            self._touch(connection, row.number, grown_by=len(body) - len(row.body), body=body)
            return True

        return self._database.write(work, len(body))


def _has_tag(pair: tuple[str, str]) -> ColumnElement[bool]:
    key, value = pair
    matching = select(tags.c.key).where(
        tags.c.object_number == objects.c.number, tags.c.key == key, tags.c.value == value
    )
    return exists(matching)
