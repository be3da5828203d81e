"""Store of the corrections of budgets by administrators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from .account_tables import budget_adjustments
from .database import Database


class AdjustmentStore:
    """What administrators added to budgets or took off. Every method raises `StorageUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store rows. Those whose `id` is stored already are left out."""

        def work(connection: Any) -> None:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            connection.execute(dialect.insert(budget_adjustments).on_conflict_do_nothing(index_elements=["id"]), rows)

        self._database.write(work)

    def sums(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """Return the sums by owner, for each name and window of a meter that has any."""
        table = budget_adjustments
        statement = select(table.c.name, table.c.period, table.c.owner, func.sum(table.c.amount)).group_by(
            table.c.name, table.c.period, table.c.owner
        )
        sums: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        for name, period, owner, amount in self._database.read(lambda connection: connection.execute(statement).all()):
            sums[name, period][owner] = int(amount)
        return sums
