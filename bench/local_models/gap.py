"""Gaps in an echo stream, alone and beside local models that generate."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.paths import ROOT
from bench.processes import free_port

from .measurements import chat, prompt_of, wait_until_ready
from .servers import Server, Site, our_server, running

ECHO_SECONDS: Final = 20.0
ECHO_DELAY: Final = 0.02
CLIENTS: Final = 8


def measure_gap(
    weights: Path, smol: dict[str, Any], rounds: int, own_server: Callable[[Site], Server] | None = None
) -> dict[str, float]:
    """Return the medians of the 99th percentiles of the gaps in an echo stream, in milliseconds.

    `smol` is the config of the model that clients call. In each round the stream runs alone, then while eight clients
    generate in the same server and another model is loaded. The gaps include the delay of the echo model.

    With `own_server`, the stream runs a third time while eight clients call that server instead, which has nothing in
    common with this one but the machine's cores.
    """
    with ExitStack() as stack:
        ours = Site(weights, free_port(), Path(stack.enter_context(tempfile.TemporaryDirectory())))
        others = [{**smol, "name": f"other-{number}"} for number in range(rounds)]
        models = [smol, *others, {"name": "echo", "kind": "echo", "delay": ECHO_DELAY}]
        stack.enter_context(running(our_server(ours, models), ours.folder))
        wait_until_ready(ours.port, "smol")
        ports = {"beside_ms": ours.port}
        if own_server is not None:
            own = Site(weights, free_port(), Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.enter_context(running(own_server(own), own.folder))
            wait_until_ready(own.port, "smol")
            ports["beside_own_server_ms"] = own.port

        samples: dict[str, list[float]] = {"alone_ms": [], **{key: [] for key in ports}}
        for other in others:
            samples["alone_ms"].append(_gap_of_process(ours.port))
            for key, port in ports.items():
                loaded = other["name"] if port == ours.port else None
                with _generating(port, loaded):
                    samples[key].append(_gap_of_process(ours.port))
    return {key: median(taken) for key, taken in samples.items()}


@contextmanager
def _generating(port: int, loaded: str | None) -> Iterator[None]:
    """Keep eight clients generating for the `with` block, and load the model `loaded` at its start."""
    is_finished = threading.Event()

    def generate_repeatedly(client: int) -> None:
        while not is_finished.is_set():
            chat(port, "smol", prompt_of(client))

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        tasks = [pool.submit(generate_repeatedly, client) for client in range(CLIENTS)]
        if loaded is not None:
            tasks.append(pool.submit(wait_until_ready, port, loaded))
        try:
            yield
        finally:
            is_finished.set()
        for task in tasks:
            task.result()


def _gap_of_process(port: int) -> float:
    """Return `echo_gap` of a client process, whose reads do not wait for the threads of the other clients."""
    command = [sys.executable, "-m", "bench.local_models", "--echo-gap", str(port)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def echo_gap(port: int) -> float:
    """Return the 99th percentile of the gaps between the chunks of an echo stream, in milliseconds."""
    prompt = " ".join(["word"] * int(ECHO_SECONDS / ECHO_DELAY))
    times = chat(port, "echo", prompt, 100_000).times
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[int(len(gaps) * 0.99)] * 1000
