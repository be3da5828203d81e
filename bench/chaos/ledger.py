"""Random kills during calls with budgets, `python -m bench.chaos.ledger`.

Clients make calls of several keys: complete, streamed, hung up in the middle, over a target that cannot be reached, and
refused. Workers are killed with SIGKILL at random moments meanwhile. In the end, the budget of each key must be the sum
of the costs of its calls to the nano-dollar, nothing may be held, and no call may be stored twice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests

from openai_compat.accounts.account import Account
from openai_compat.state.ledger import HOLDER_SECONDS
from tests.support.accounts_site import AccountsSite
from tests.support.live_server import LiveServer
from tests.support.postgres_server import running_postgres
from tests.support.redis_server import running_redis

from .harness import wait_for

CLIENTS: Final = 8
WORKERS: Final = 2
KEYS: Final = 4
MOST_CALLS: Final = 30
"""Most calls between two kills."""
PRICE: Final = {"input": 3, "output": 15, "request": 0.0001}
MODELS: Final = [
    {"name": "echo", "kind": "echo", "price": PRICE},
    {"name": "slow", "kind": "echo", "delay": 0.01, "price": PRICE},
    {"name": "away", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "price": PRICE},
    {"name": "route", "targets": [{"model": "away"}], "fallbacks": ["slow"]},
]
POLICY: Final = {
    "budgets": [{"amount": 1000}],
    "limits": {"concurrent_requests": 25, "requests_per_day": 1_000_000, "tokens_per_day": 100_000_000},
}
"""What killed workers held keeps some places until it is released, so that some calls are refused."""
WORDS: Final = "one two three four five six seven eight nine ten"
TIMEOUT: Final = 60


@dataclass
class Load:
    """Clients that make calls until they are stopped, and how the calls ended."""

    urls: Sequence[str]
    secrets: Sequence[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    _is_stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make calls in threads during a `with` block."""
        threads = [threading.Thread(target=self._call_until_stopped, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_stopped.set()
            for thread in threads:
                thread.join()

    @property
    def ended(self) -> int:
        """Calls that ended, well or not."""
        return sum(self.outcomes.values())

    def _call_until_stopped(self, client: int) -> None:
        rng = random.Random(client)
        while not self._is_stopped.is_set():
            try:
                self.outcomes[self._call(rng)] += 1
            except requests.RequestException:
                self.outcomes["cut"] += 1

    def _call(self, rng: random.Random) -> str:
        model, is_streamed = rng.choice(("echo", "slow", "slow", "route", "away")), rng.random() < 0.6
        words = " ".join(rng.choices(WORDS.split(), k=rng.randint(3, 30)))
        body = {"model": model, "messages": [{"role": "user", "content": words}], "stream": is_streamed}
        headers = {"Authorization": f"Bearer {rng.choice(self.secrets)}"}
        url = f"{rng.choice(self.urls)}/chat/completions"
        with requests.post(url, json=body, headers=headers, timeout=TIMEOUT, stream=True) as answer:
            if answer.status_code != 200:
                return str(answer.status_code)
            if is_streamed and rng.random() < 0.3:
                next(answer.iter_content(64), b"")
                return "hung up"
            return "complete" if answer.content else "empty"


def kill_workers(load: Load, servers: Sequence[LiveServer], count: int, rng: random.Random) -> None:
    """Kill a random worker `count` times, each after a random number of calls."""
    for _ in range(count):
        wanted = load.ended + rng.randint(1, MOST_CALLS)
        wait_for(lambda wanted=wanted: load.ended >= wanted)  # type: ignore[misc]
        server = rng.choice(servers)
        wait_for(lambda server=server: len(server.workers()) == WORKERS)  # type: ignore[misc]
        os.kill(rng.choice(sorted(server.workers())), signal.SIGKILL)


def find_faults(site: AccountsSite, account: Account) -> list[str]:
    """Return what does not add up for a key."""
    rows = site.rows(account)
    total, spent, held = sum(row["cost_nano"] for row in rows), site.spent(account), site.held(account)
    by_hours = site.storage.usage.spent("key", [account.id], 0).get(account.id, 0)
    faults = []
    if not total == spent == by_hours:
        faults.append(f"{account.id}: the budget has {spent}, the calls cost {total}, and the hours {by_hours}")
    if held:
        faults.append(f"{account.id}: {held} is still held")
    if len({row["id"] for row in rows}) < len(rows):
        faults.append(f"{account.id}: a call is stored twice")
    return faults


def wait_until_settled(site: AccountsSite) -> None:
    """Wait until the holds of the last killed worker are released, and all records are moved."""
    deadline = time.monotonic() + HOLDER_SECONDS + 30
    quiet_from = time.monotonic() + HOLDER_SECONDS + 10
    while time.monotonic() < deadline and (time.monotonic() < quiet_from or site.ledger.records(1)):
        time.sleep(1)


def run(folder: Path, kills: int, seed: int, *, is_shared: bool) -> int:
    """Run the servers, the load and the kills. Return 1 if something does not add up."""
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if is_shared:
            (folder / "redis").mkdir()
            settings["SHARED_STATE_URL"] = stack.enter_context(running_redis(folder / "redis")).url
            settings["DATABASE_URL"] = stack.enter_context(running_postgres()).create_database("chaos")
        site = stack.enter_context(AccountsSite(folder, MODELS, LOG_LEVEL="ERROR", **settings))
        keys = [site.create_key(**POLICY) for _ in range(KEYS)]
        servers = [
            stack.enter_context(LiveServer(site.settings, workers=WORKERS)) for _ in range(2 if is_shared else 1)
        ]
        load = Load([server.base_url for server in servers], [secret for _, secret in keys])
        with load.running():
            kill_workers(load, servers, kills, random.Random(seed))
        wait_until_settled(site)
        faults = [fault for account, _ in keys for fault in find_faults(site, account)]
        stored = sum(len(site.rows(account)) for account, _ in keys)
        spent = sum(site.spent(account) for account, _ in keys)
    ended = ", ".join(f"{count} {outcome}" for outcome, count in sorted(load.outcomes.items()))
    print(f"{kills} kills, {len(servers)} servers: {load.ended} calls ({ended})")
    print(f"{stored} calls stored, {spent / 1e9:.9f} dollars spent, {len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="bench.chaos.ledger", description="Kill workers during calls with budgets.")
    parser.add_argument("--kills", type=int, default=200, help="workers to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=6, help="of the random choices (default: %(default)s)")
    parser.add_argument("--shared", action="store_true", help="two servers with Redis and PostgreSQL")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-", ignore_cleanup_errors=True) as folder:
        return run(Path(folder), arguments.kills, arguments.seed, is_shared=arguments.shared)


if __name__ == "__main__":
    sys.exit(main())
