"""Random kills of workers during stored calls, `make kills ARGS=...`.

Clients store chat completions and responses, streamed and not, and items of a conversation, while workers are killed
with SIGKILL at random moments. In the end, everything that was acknowledged must be there: every complete answer, every
stream whose `[DONE]` or `response.completed` arrived, and every item.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.paths import ROOT
from bench.processes import PROC, ProcessTree, free_port

from .harness import get, wait_for

CLIENTS: Final = 8
WORKERS: Final = 2
MOST_CALLS: Final = 40
"""Most calls between two kills."""
HEADERS: Final = {"Content-Type": "application/json", "Authorization": "Bearer killed"}


class Failed(Exception):
    """The server did not answer a call completely, which is no promise to have stored it."""


@dataclass
class StoredCalls:
    """Clients of a server that store objects until they are stopped, and what was acknowledged to them."""

    port: int
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Path of each stored object or item, with a text that it must contain."""
    failures: int = 0
    _is_stopped: threading.Event = field(default_factory=threading.Event)

    def run_while(self, work: Callable[[], None]) -> None:
        """Make calls in threads until `work` returns."""
        threads = [threading.Thread(target=self._call_until_stopped, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            work()
        finally:
            self._is_stopped.set()
            for thread in threads:
                thread.join()

    def lost(self) -> list[str]:
        """Return the paths of what was acknowledged and is not there."""
        return [path for path, text in self.acknowledged.items() if text not in self._read(path)]

    def _call_until_stopped(self, client: int) -> None:
        rng = random.Random(client)
        number = 0
        conversation: str | None = None
        while not self._is_stopped.is_set():
            number += 1
            try:
                conversation = conversation or self._post("conversations", {})["id"]
                self._store(f"text {client}-{number}", conversation, rng)
            except (OSError, http.client.HTTPException, Failed):
                self.failures += 1
                time.sleep(0.01)

    def _store(self, text: str, conversation: str, rng: random.Random) -> None:
        kind = rng.choice(["complete", "streamed", "item", "response", "streamed response"])
        if kind == "item":
            items = [{"role": "user", "content": text}]
            added = self._post(f"conversations/{conversation}/items", {"items": items})
            self.acknowledged[f"conversations/{conversation}/items/{added['first_id']}"] = text
            return
        if kind.endswith("response"):
            self._store_response(text, is_streamed=kind.startswith("streamed"))
            return
        body = {"messages": [{"role": "user", "content": text}], "store": True, "stream": kind == "streamed"}
        id = self._post_streamed(body) if kind == "streamed" else self._post("chat/completions", body)["id"]
        self.acknowledged[f"chat/completions/{id}"] = text

    def _store_response(self, text: str, *, is_streamed: bool) -> None:
        try:
            answer = self._exchange("POST", "responses", json.dumps({"input": text, "stream": is_streamed}))
        except http.client.IncompleteRead as error:  # the client may have seen the last event nevertheless
            answer = error.partial.decode()
        if is_streamed:
            last = answer.rstrip("\n").rpartition("\n\n")[2]
            if not (last.startswith("event: response.completed\n") and answer.endswith("\n\n")):
                raise Failed
            id = json.loads(last.partition("\ndata: ")[2])["response"]["id"]
        elif answer.endswith("}"):
            id = json.loads(answer)["id"]
        else:
            raise Failed
        self.acknowledged[f"responses/{id}"] = text

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._exchange("POST", path, json.dumps(body)))
        return answer

    def _post_streamed(self, body: dict[str, Any]) -> str:
        events = self._exchange("POST", "chat/completions", json.dumps(body)).split("\n\n")
        if "data: [DONE]" not in events:
            raise Failed
        return str(json.loads(events[0].removeprefix("data: "))["id"])

    def _read(self, path: str) -> str:
        try:
            return self._exchange("GET", path, None)
        except Failed:
            return ""

    def _exchange(self, method: str, path: str, body: str | None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/v1/{path}", body, HEADERS)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise Failed
        return text


def kill_workers(calls: StoredCalls, count: int, workers: Callable[[], Collection[int]], rng: random.Random) -> None:
    """Kill a random worker `count` times, each after a random number of acknowledged calls, also a starting one."""
    for _ in range(count):
        _wait_for_calls(calls, rng.randint(1, MOST_CALLS))
        victim = rng.choice(sorted(workers()))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: victim not in workers() and len(workers()) == WORKERS)  # type: ignore[misc]


def _wait_for_calls(calls: StoredCalls, count: int) -> None:
    wanted = len(calls.acknowledged) + count
    wait_for(lambda: len(calls.acknowledged) >= wanted)


def main() -> int:
    """Run the server and the kills, and return 1 if something was lost."""
    parser = argparse.ArgumentParser(prog="make kills ARGS=", description="Kill workers during stored calls.")
    parser.add_argument("--kills", type=int, default=200, help="workers to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=6, help="of the random choices (default: %(default)s)")
    parser.add_argument("--database-url", help="PostgreSQL instead of an SQLite file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        server = _start_server(Path(folder), port, arguments.database_url)
        calls = StoredCalls(port)
        try:
            wait_for(lambda: _answers(port))
            rng = random.Random(arguments.seed)
            calls.run_while(lambda: kill_workers(calls, arguments.kills, lambda: children(server.process.pid), rng))
            lost = calls.lost()
        finally:
            server.stop()
    print(f"{arguments.kills} kills: {len(calls.acknowledged)} acknowledged, {calls.failures} failed, {len(lost)} lost")
    print(*lost[:20], sep="\n")
    return 1 if lost else 0


def children(pid: int) -> list[int]:
    """Return the workers of a gunicorn master."""
    return [int(child) for child in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]


def _start_server(folder: Path, port: int, database_url: str | None) -> ProcessTree:
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder), "DATA_DIR": str(folder)}
    if database_url:
        environ["DATABASE_URL"] = database_url
    serve = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
    serve += ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
    return ProcessTree(serve, folder, environ, "server.log")


def _answers(port: int) -> bool:
    try:
        return get(port, "/healthz").status == http.client.OK
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
