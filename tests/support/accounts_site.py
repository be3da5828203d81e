"""The accounts of live servers, from outside: keys, what the ledger says and what the database says."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from sqlalchemy import select

from openai_compat.accounts.account import Account
from openai_compat.accounts.charges import rules_of
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.policy import parse_policy
from openai_compat.accounts.service import LEDGER_FILE
from openai_compat.core.errors import StorageUnavailableError
from openai_compat.state.ledger import Ledger, Level
from openai_compat.state.redis_ledger import RedisLedger
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import open_storage
from openai_compat.storage.account_tables import usage
from tests.support.waiting import wait_until

REQUEST_SECONDS = 30
MAX_BYTES = 10**6


class AccountsSite:
    """The ledger and the database of servers with the settings `settings`, in a `with` block."""

    def __init__(self, folder: Path, models: Any, **settings: str) -> None:
        (folder / "models.json").write_text(json.dumps(models))
        self.folder = folder
        own = {"MODELS_FILE": str(folder / "models.json"), "DATA_DIR": str(folder), "SSE_KEEPALIVE_SECONDS": "0.2"}
        self.settings = {**own, **settings}
        self.storage = open_storage(settings.get("DATABASE_URL"), str(folder), 86400, MAX_BYTES)
        url = settings.get("SHARED_STATE_URL")
        self.ledger: Ledger = (
            SQLiteLedger(str(folder / LEDGER_FILE), "test") if url is None else RedisLedger(url, "test")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.ledger.close()
        self.storage.close()

    def create_key(self, **policy: Any) -> tuple[Account, str]:
        """Create a key. All workers know it within a second."""
        return AccountManager(self.storage, self.ledger).create_key(NewAccount("test", policy=parse_policy(policy)))

    def levels(self, account: Account) -> Mapping[str, Level]:
        """Return the levels of the meters of an account, by the names of its limits and budgets."""
        now, rules = time.time(), rules_of(account)
        return dict(
            zip([rule.name for rule in rules], self.ledger.levels([rule.meter(now) for rule in rules]), strict=True)
        )

    def spent(self, account: Account) -> int:
        """Return the nano-dollars of the only budget of an account."""
        (level,) = (level for name, level in self.levels(account).items() if name.startswith("budget"))
        return level.current

    def held(self, account: Account) -> int:
        """Return what calls hold of all meters of an account."""
        return sum(level.held for level in self.levels(account).values())

    def rows(self, account: Account) -> list[dict[str, Any]]:
        """Return the rows of the calls of a key that are in the database."""
        statement = select(usage).where(usage.c.key_id == account.id).order_by(usage.c.number)
        found = self.storage.usage._database.read(lambda connection: connection.execute(statement).mappings().all())
        return [dict(row) for row in found]

    def wait_for_rows(self, account: Account, count: int) -> list[dict[str, Any]]:
        """Return the rows once the database answers and has `count` of them."""
        rows: list[dict[str, Any]] = []

        def are_there() -> bool:
            with suppress(StorageUnavailableError):
                rows[:] = self.rows(account)
            return len(rows) >= count

        wait_until(are_there, lambda: f"{count} rows: {rows}")
        return rows

    def check_sums(self, account: Account, calls: int) -> None:
        """Check that each of `calls` calls has a row, nothing is held, and the budget has the sum of the rows."""
        rows = self.wait_for_rows(account, calls)
        assert len(rows) == calls
        assert self.held(account) == 0
        assert self.spent(account) == sum(row["cost_nano"] for row in rows)
        key_id = account.id
        assert self.storage.usage.spent("key", [key_id], 0).get(key_id, 0) == self.spent(account)


def post(base_url: str, secret: str, path: str = "chat/completions", **body: Any) -> requests.Response:
    """Send a call, by default a chat with one message."""
    if path == "chat/completions":
        body.setdefault("messages", [{"role": "user", "content": "one two three four five six seven eight nine"}])
    headers = {"Authorization": f"Bearer {secret}"}
    return requests.post(f"{base_url}/{path}", json=body, headers=headers, timeout=REQUEST_SECONDS)
