"""CPU time of a worker for a chat and a response that are stored, beside the same calls that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from bench.costs import COMPARED, MEASURED, Chart
from bench.turns import Call, measure_in_turns
from bench.workloads import conversation
from tests.support.live_server import LiveServer
from tests.support.postgres_server import running_postgres

PATHS: Final = {"chat": ("/v1/chat/completions", "messages"), "response": ("/v1/responses", "input")}
"""Path of each kind of call, and the key of its messages."""
MODEL: Final = "mock-gpt-model"
SETTINGS: Final = {"INCLUDE_DEFAULT_MODELS": "true"}
NOT_STORED: Final = "not stored"
ROUNDS: Final = 9
COUNT: Final = 400
CLIENTS: Final = (1, 16)


def measure_calls() -> Iterator[Chart]:
    """Yield a chart for each number of concurrent clients, and print a line for each kind of call."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        servers = {
            "SQLite": stack.enter_context(LiveServer(SETTINGS)),
            "PostgreSQL": stack.enter_context(LiveServer({**SETTINGS, "DATABASE_URL": postgres.url})),
        }
        calls = {name: call for kind in PATHS for name, call in _to_calls(servers, kind)}
        colours = {name: COMPARED if "PostgreSQL" in name else MEASURED for name in calls if NOT_STORED not in name}
        for clients in CLIENTS:
            costs = measure_in_turns(calls, ROUNDS, COUNT, clients)
            for name, cost in costs.items():
                plain = costs[f"{name.partition(',')[0]}, {NOT_STORED}"]
                print(f"{clients:2} clients, {name}: {cost:,.0f} µs a call ({cost - plain:+,.0f} µs)", flush=True)
            title = f"CPU time of a call, {clients} client{'s' * (clients > 1)} (µs, logarithmic)"
            yield Chart(f"storage-{clients}", title, costs, colours)


def _to_calls(servers: Mapping[str, LiveServer], kind: str) -> Iterator[tuple[str, Call]]:
    path, key = PATHS[kind]
    for database in (NOT_STORED, *servers):
        server = servers.get(database, servers["SQLite"])
        body = {"model": MODEL, key: conversation(2, 380), "store": database != NOT_STORED}
        yield f"{kind}, {database}", Call(server.process.pid, server.port, path, json.dumps(body).encode())
