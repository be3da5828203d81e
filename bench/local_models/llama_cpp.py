"""Kind `llama_cpp` beside llama.cpp's own server, with the same weights and parameters, in alternating rounds."""

from __future__ import annotations

import http.client
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.paths import ROOT
from bench.processes import PROC, ProcessTree, cpu_ns, free_port
from openai_compat.sidecars.llama_cpp.launch import LaunchConfig

from .measurements import CLIENTS, START_TIMEOUT, TOKENS, prompt_of, wait_until_ready
from .servers import Server, Site, our_server, running

SLOTS: Final = 16
WINDOW: Final = 2048
MODES: Final = ("streamed", "whole")
FIRST_TOKENS: Final = 60
"""Calls of each server for the time to first token."""


@dataclass(frozen=True)
class Answer:
    """The number of tokens of one answer, and the seconds until its first byte of text."""

    tokens: int
    first_token: float


def measure_llama_cpp(gguf: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Return the tokens a second of both servers for each number of clients, and their times to first token.

    The model has `threads` in both (None: one for each core). Each mode has servers of its own, because llama.cpp
    decodes sequences of neighbouring slots together, and earlier calls decide which slots it chooses: after 16 clients,
    8 clients get between 150 and 200 tokens a second.
    """
    figures: dict[str, Any] = {}
    for mode in MODES:
        with running_servers(gguf, threads) as (trees, ports):
            figures[mode] = {str(clients): _compare(ports, clients, mode, rounds) for clients in CLIENTS}
            if mode == "streamed":
                figures["first_token_ms"] = _compare_first_tokens(ports)
                figures["cpu"] = {
                    str(clients): _measure_cpu(trees["ours"], ports["ours"], clients) for clients in CLIENTS
                }
    return figures


@contextmanager
def running_servers(gguf: Path, threads: int | None = None) -> Iterator[tuple[dict[str, ProcessTree], dict[str, int]]]:
    """Run both servers, and yield their processes and ports."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sites = {server: Site(gguf, free_port(), _folder(Path(name), server)) for server in ("own", "ours")}
        trees = {}
        for server, build in (("own", own_server), ("ours", gateway)):
            trees[server] = stack.enter_context(running(build(sites[server], threads), sites[server].folder))
            wait_until_ready(sites[server].port, "smol")
        yield trees, {server: site.port for server, site in sites.items()}


def own_server(site: Site, threads: int | None = None) -> Server:
    """Return llama.cpp's own server."""
    config = LaunchConfig(
        name="smol", socket="", file=str(site.weights), slots=SLOTS, window=WINDOW, connections=SLOTS + 8,
        max_tokens=1024, threads=threads,
    )  # fmt: skip
    program = shlex.join([sys.executable, "-m", "bench.local_models.llama_server", str(site.port)])
    command = ["sh", "-c", f"echo {shlex.quote(config.to_json())} | exec {program}"]
    return Server(command, {"PYTHONPATH": str(ROOT)}, "smol")


def gateway(site: Site, threads: int | None = None) -> Server:
    """Return this server with one worker."""
    return our_server(site, [llama_model(site.weights, threads)])


def llama_model(gguf: Path, threads: int | None = None) -> dict[str, Any]:
    """Return the model config with the parameters of `own_server`."""
    config = {
        "name": "smol",
        "kind": "llama_cpp",
        "gguf_file": str(gguf),
        "max_batch": SLOTS,
        "max_context_tokens": WINDOW,
    }
    return config if threads is None else {**config, "threads": threads}


def call(port: int, mode: str, prompt: str, tokens: int) -> Answer:
    """Make one greedy chat of exactly `tokens` tokens.

    Raises:
        OSError: the server cannot be reached.
        RuntimeError: the status is not 200.
    """
    body = {
        "model": "smol",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": mode == "streamed",
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT)
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:300]!r}")
    answer = _read_stream(response, started) if mode == "streamed" else _read_whole(response, started)
    connection.close()
    return answer


def _read_whole(response: http.client.HTTPResponse, started: float) -> Answer:
    content = json.loads(response.read())
    return Answer(content["usage"]["completion_tokens"], time.perf_counter() - started)


def _read_stream(response: http.client.HTTPResponse, started: float) -> Answer:
    tokens, first = 0, 0.0
    for line in response:
        if not first and b'"content":"' in line:
            first = time.perf_counter() - started
        if b'"usage":{' in line:
            tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    return Answer(tokens, first)


def _compare(ports: Mapping[str, int], clients: int, mode: str, rounds: int) -> dict[str, float]:
    """Return the median tokens a second of each server, and the median of the rounds' ratios."""
    orders = islice(cycle([list(ports), list(ports)[::-1]]), rounds)
    samples = [{server: _speed(ports[server], clients, mode) for server in order} for order in orders]
    return {
        **{server: median(sample[server] for sample in samples) for server in ports},
        "ratio": median(sample["ours"] / sample["own"] for sample in samples),
    }


def _speed(port: int, clients: int, mode: str) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        chat: Callable[[int], Answer] = lambda client: call(port, mode, prompt_of(client), TOKENS)  # noqa: E731
        answers = list(pool.map(chat, range(clients)))
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - started)


def _compare_first_tokens(ports: Mapping[str, int]) -> dict[str, float]:
    """Return the median milliseconds to the first token of one caller, and how much more this server takes."""
    measure = partial(call, mode="streamed", prompt=prompt_of(0), tokens=2)
    samples = [
        {server: measure(port).first_token * 1000 for server, port in ports.items()} for _ in range(FIRST_TOKENS)
    ]
    medians = {server: median(sample[server] for sample in samples) for server in ports}
    return {**medians, "added": medians["ours"] - medians["own"]}


def _measure_cpu(tree: ProcessTree, port: int, clients: int) -> dict[str, float]:
    """Return the CPU time of a streamed token in milliseconds, of llama.cpp and of everything else of this server."""
    before = _cpu_times(tree)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda client: call(port, "streamed", prompt_of(client), TOKENS), range(clients)))
    tokens = sum(answer.tokens for answer in answers)
    after = _cpu_times(tree)
    return {part: (after[part] - before[part]) / tokens / 1e6 for part in after}


def _cpu_times(tree: ProcessTree) -> dict[str, int]:
    """Return the CPU time so far in nanoseconds, by part."""
    times = {"llama_cpp": 0, "gateway": 0}
    for pid in tree.pids():
        command = (PROC / str(pid) / "cmdline").read_bytes()
        times["llama_cpp" if command.endswith(b"sidecars.llama_cpp\0") else "gateway"] += cpu_ns(pid)
    return times


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
