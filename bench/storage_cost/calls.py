"""CPU time of a worker for a chat that is stored, beside the same chat that is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from bench.turns import Call, measure_in_turns
from bench.workloads import conversation, to_body
from tests.support.live_server import LiveServer
from tests.support.postgres_server import running_postgres

PATH: Final = "/v1/chat/completions"
MODEL: Final = {"INCLUDE_DEFAULT_MODELS": "true"}
ROUNDS: Final = 9
COUNT: Final = 400
CLIENTS: Final = (1, 16)


def measure_calls() -> Iterator[str]:
    """Yield a line for each number of concurrent clients and each kind of call."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        servers = {
            "SQLite": stack.enter_context(LiveServer(MODEL)),
            "PostgreSQL": stack.enter_context(LiveServer({**MODEL, "DATABASE_URL": postgres.url})),
        }
        calls = dict(_to_calls(servers))
        for clients in CLIENTS:
            costs = measure_in_turns(calls, ROUNDS, COUNT, clients)
            plain = costs["not stored"]
            for name, cost in costs.items():
                yield f"{clients:2} clients, {name}: {cost:,.0f} µs a call ({cost - plain:+,.0f} µs)"


def _to_calls(servers: Mapping[str, LiveServer]) -> Iterator[tuple[str, Call]]:
    for name, server in servers.items():
        for stored in (True, False) if name == "SQLite" else (True,):
            body = to_body(conversation(2, 380), store=stored, model="mock-gpt-model")
            yield name if stored else "not stored", Call(server.process.pid, server.port, PATH, body)
