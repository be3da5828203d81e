"""Cost of accounts, `python -m bench.accounts_cost`.

It prints the worker's CPU time for a chat that is passed through and for an event of its stream, with a key of
`API_KEYS` and with a key that has limits on requests, tokens and concurrent calls and a budget, whose calls are
recorded. The ledger is SQLite or Redis. The figures and plots of them are written to `results/`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.policy import parse_policy
from openai_compat.accounts.service import open_ledgers
from openai_compat.core.settings import Settings
from openai_compat.storage import open_storage
from tests.support.live_server import LiveServer
from tests.support.redis_server import running_redis

from .costs import COMPARED, MEASURED, Chart, write_charts
from .systems import launch_upstream
from .turns import Call, measure_in_turns
from .workloads import EVENTS, KEY, conversation

CHAT: Final = "/v1/chat/completions"
PLAIN: Final = "a key of API_KEYS"
CALLS: Final = 400
CALL_ROUNDS: Final = 9
STREAMS: Final = 100
STREAM_ROUNDS: Final = 3
COLOURS: Final = {"an account, SQLite": MEASURED, "an account, Redis": COMPARED}
END_OF_STREAM: Final = b"0\r\n\r\n"
POLICY: Final = {
    "limits": {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_requests": 10**6},
    "budgets": [{"amount": 10**6, "every": "month"}],
}


def main() -> None:
    """Measure calls and streams, and print a line for each kind."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = launch_upstream(folder)
        stack.callback(upstream.processes.stop)
        models = folder / "models.json"
        row = {"name": "chat", "kind": "openai", "base_url": upstream.site.upstream, "price": {"input": 1, "output": 2}}
        models.write_text(json.dumps([row]))
        redis = stack.enter_context(running_redis(folder))
        servers = {
            name: (stack.enter_context(LiveServer(environ)), key)
            for name, environ, key in _sites(folder, {"MODELS_FILE": str(models)}, redis.url)
        }
        calls = measure_in_turns({name: _call(*site) for name, site in servers.items()}, CALL_ROUNDS, CALLS)
        streamed = {name: _call(*site, stream=True) for name, site in servers.items()}
        streams = measure_in_turns(streamed, STREAM_ROUNDS, STREAMS, STREAMS)
    events = {name: cost / EVENTS for name, cost in streams.items()}
    _print_costs("a call", calls)
    _print_costs("an event", events)
    title = "CPU time per streamed event, 100 streams (µs, logarithmic)"
    charts = [
        Chart("accounts-call", "CPU time of a chat (µs, logarithmic)", calls, COLOURS),
        Chart("accounts-event", title, events, COLOURS),
    ]
    write_charts("accounts", charts)


def _sites(folder: Path, common: Mapping[str, str], redis_url: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield the name, the environment and the key of each server."""
    yield PLAIN, {**common, "ACCOUNTS": "off", "API_KEYS": KEY, "DATA_DIR": str(folder / "none")}, KEY
    for name, state in (("an account, SQLite", None), ("an account, Redis", redis_url)):
        data = str(folder / name)
        settings = Settings(data_dir=data, shared_state_url=state)
        ledger, _ = open_ledgers(settings)
        manager = AccountManager(open_storage(None, data, 0, 0), ledger)
        _, key = manager.create_key(NewAccount("bench", policy=parse_policy(POLICY)))
        yield name, {**common, "DATA_DIR": data, **({"SHARED_STATE_URL": state} if state else {})}, key


def _call(server: LiveServer, key: str, **options: Any) -> Call:
    body = {"model": "chat", "messages": conversation(2, 380), "max_tokens": EVENTS, **options}
    end = END_OF_STREAM if options else b"}"
    headers = {"Authorization": f"Bearer {key}"}
    return Call(server.process.pid, server.port, CHAT, json.dumps(body).encode(), end, headers)


def _print_costs(unit: str, costs: dict[str, float]) -> None:
    for name, cost in costs.items():
        print(f"{name}: {cost:,.1f} µs for {unit} ({cost - costs[PLAIN]:+,.1f})", flush=True)


if __name__ == "__main__":
    main()
