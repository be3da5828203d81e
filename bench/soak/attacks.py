"""Attacks of clients, each a thread that goes on until the end of the run."""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Final

from bench.soak.hostile_upstream import ATTACKS as UPSTREAM_ATTACKS
from bench.workloads import KEY, to_stream_body

CHAT: Final = "/v1/chat/completions"
HEADERS: Final = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
SLOW_BODIES: Final = 40
SLOW_HEADS: Final = 200
IDLE_SOCKETS: Final = 2500
SLOW_READERS: Final = 100
BODY_BYTES: Final = 30_000_000


class Attacker:
    """One attack on the server's own port and on nginx's port, chosen at random for each connection."""

    def __init__(self, ports: list[int], deadline: float) -> None:
        self._ports = ports
        self._deadline = deadline
        self._rng = random.Random(4711)
        self.outcomes: Counter[str] = Counter()

    def turns(self, pause: float) -> Iterator[None]:
        """Yield until the deadline, with a pause after each turn."""
        while time.monotonic() < self._deadline:
            yield
            time.sleep(pause)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._rng.choice(self._ports)), timeout=10)

    def post(self, body: bytes, *, path: str = CHAT, key: str = KEY) -> None:
        """Send a request and count the status of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._rng.choice(self._ports), timeout=60)
        try:
            with closing(connection):
                connection.request("POST", path, body, {**HEADERS, "Authorization": f"Bearer {key}"})
                self.outcomes[str(connection.getresponse().status)] += 1
        except (OSError, http.client.HTTPException) as error:
            self.outcomes[type(error).__name__] += 1

    def hold(self, count: int, beginning: bytes, drip: bytes, pause: float) -> None:
        """Keep `count` connections that begin so and send `drip` after each pause. Replace those that are closed."""
        sockets: list[socket.socket] = []
        for _ in self.turns(pause):
            sockets = [sock for sock in sockets if self._sends(sock, drip)]
            with suppress(OSError):
                for _ in range(count - len(sockets)):
                    sock = self.connect()
                    sock.sendall(beginning)
                    sockets.append(sock)
        for sock in sockets:
            sock.close()

    def _sends(self, sock: socket.socket, drip: bytes) -> bool:
        try:
            sock.setblocking(False)
            if drip:
                sock.sendall(drip)
            elif sock.recv(1) == b"":
                raise ConnectionResetError
        except BlockingIOError:
            return True
        except OSError:
            sock.close()
            self.outcomes["closed"] += 1
            return False
        return True


def slow_bodies(attacker: Attacker) -> None:
    """Send bodies at a byte every two seconds."""
    attacker.hold(SLOW_BODIES, _head(BODY_BYTES) + b'{"a":"', b"x", 2)


def slow_heads(attacker: Attacker) -> None:
    """Send request heads at a byte every half second."""
    attacker.hold(SLOW_HEADS, f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nX-Drip: ".encode(), b"x", 0.5)


def idle_sockets(attacker: Attacker) -> None:
    """Open connections and send nothing."""
    attacker.hold(IDLE_SOCKETS, b"", b"", 1)


def slow_readers(attacker: Attacker) -> None:
    """Start streams and do not read them."""
    body = to_stream_body(10)
    attacker.hold(SLOW_READERS, _head(len(body)) + body, b"", 1)


def hang_ups(attacker: Attacker) -> None:
    """Start streams and leave."""
    body = to_stream_body(50)
    for _ in attacker.turns(0.05):
        with suppress(OSError), attacker.connect() as sock:
            sock.sendall(_head(len(body)) + body)
            time.sleep(0.02)


def many_values(attacker: Attacker) -> None:
    """Send large bodies of small JSON values."""
    body = b'{"model":"bench","messages":[' + b"{}," * (BODY_BYTES // 3) + b"{}]}"
    for _ in attacker.turns(2):
        attacker.post(body)


def wrong_keys(attacker: Attacker) -> None:
    """Send large bodies with a wrong key."""
    body = b'{"model":"bench","messages":"' + b"x" * BODY_BYTES + b'"}'
    for _ in attacker.turns(1):
        attacker.post(body, key="sk-wrong")


def long_names(attacker: Attacker) -> None:
    """Ask for models with names of a megabyte."""
    for _ in attacker.turns(0.5):
        attacker.post(
            json.dumps({"model": "\u2028" * 300_000, "messages": [{"role": "user", "content": "x"}]}).encode()
        )


def large_work(attacker: Attacker) -> None:
    """Send small requests whose answers are large."""
    embeddings = {"model": "echo", "input": ["x"] * 2048, "dimensions": 3072}
    logprobs = {"model": "echo", "logprobs": True, "top_logprobs": 20, "n": 128}
    chat = {**logprobs, "messages": [{"role": "user", "content": "x " * 2000}]}
    for _ in attacker.turns(1):
        attacker.post(json.dumps(embeddings).encode(), path="/v1/embeddings")
        attacker.post(json.dumps(chat).encode())


def hostile_upstream(attacker: Attacker) -> None:
    """Ask models whose upstream attacks the server."""
    threads: list[threading.Thread] = []
    names = sorted(UPSTREAM_ATTACKS)
    for turn, _ in enumerate(attacker.turns(0.5)):
        threads = [thread for thread in threads if thread.is_alive()]
        body = json.dumps({"model": names[turn % len(names)], "messages": [{"role": "user", "content": "x"}]}).encode()
        threads.append(threading.Thread(target=attacker.post, args=(body,), daemon=True))
        threads[-1].start()


ATTACKS: Final[list[Callable[[Attacker], None]]] = [
    slow_bodies, slow_heads, idle_sockets, slow_readers, hang_ups, many_values, wrong_keys, long_names, large_work,
    hostile_upstream,
]  # fmt: skip


def _head(length: int) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n".encode()


def run(ports: list[int], seconds: float, only: str = "") -> dict[str, dict[str, int]]:
    """Run all attacks at once, or `only` one, and return the outcomes of each."""
    deadline = time.monotonic() + seconds
    chosen = [attack for attack in ATTACKS if only in {"", attack.__name__}]
    attackers = [Attacker(ports, deadline) for _ in chosen]
    threads = [
        threading.Thread(target=attack, args=(attacker,), daemon=True)
        for attack, attacker in zip(chosen, attackers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {attack.__name__: dict(attacker.outcomes) for attack, attacker in zip(chosen, attackers, strict=True)}


if __name__ == "__main__":
    print(json.dumps(run([int(port) for port in sys.argv[1].split(",")], float(sys.argv[2]), *sys.argv[3:4])))
