"""Local models beside `transformers serve` and `model.generate`: the same weights, the same prompts, turn by turn.

make bench-local                                  everything, about 25 minutes
python -m bench.local_models --only ours-int8            one system; results are merged into the last run's
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.machine import describe_hardware
from bench.paths import INSTALLED, RESULTS, ROOT
from bench.processes import Running, free_port

from .report import to_markdown

SERVING: Final = INSTALLED / "transformers-serving"
CALLERS: Final = (1, 8, 16)
TOKENS: Final = 48
"""For each caller."""
START_SECONDS: Final = 240
GAP_SECONDS: Final = 20.0
ECHO_PAUSE: Final = 0.02
SUBJECTS: Final = (
    "a lighthouse", "the sea", "a train", "bread", "the moon", "a violin", "rain", "an old map",
    "a market", "winter", "a bridge", "tea", "a library", "the desert", "a clock", "birds",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """What a system is started with: the weights in a folder, a port, and a folder of its own."""

    weights: Path
    port: int
    folder: Path


@dataclass(frozen=True)
class Server:
    """A command, its environment, and the name of the model there."""

    command: list[str]
    environ: dict[str, str]
    model: str


def ours(**row: Any) -> Callable[[Site], Server]:
    """This server, its row as given."""
    return lambda site: our_server(site, [{"name": "smol", "hf_repo": str(site.weights), **row}])


def our_server(site: Site, rows: list[dict[str, Any]], workers: int = 1) -> Server:
    file = site.folder / "models.json"
    file.write_text(json.dumps(rows))
    environ = {"MODELS_FILE": str(file), "INCLUDE_DEFAULT_MODELS": "false", "PORT": str(site.port)}
    command = [sys.executable, "-m", "openai_compat", "serve", "--workers", str(workers)]
    return Server(command, {**environ, "PYTHONPATH": str(ROOT), "HOST": "127.0.0.1"}, "smol")


def transformers_serve(*flags: str) -> Callable[[Site], Server]:
    """The command of transformers, with what it needs beside this project's own packages."""

    def start(site: Site) -> Server:
        if not SERVING.is_dir():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "-q",
                "install",
                "--target",
                str(SERVING),
            ]
            subprocess.run([*pip, "fastapi", "uvicorn", "openai", "python-multipart"], check=True)
        program = str(Path(sys.executable).with_name("transformers"))
        place = ["--host", "127.0.0.1", "--port", str(site.port)]
        return Server(
            [program, "serve", str(site.weights), *flags, *place], {"PYTHONPATH": str(SERVING)}, str(site.weights)
        )

    return start


SYSTEMS: Final[Mapping[str, Callable[[Site], Server]]] = {
    "transformers-serve": transformers_serve(),
    "transformers-serve-continuous": transformers_serve("--continuous-batching"),
    "ours-float32": ours(dtype="float32"),
    "ours-bfloat16": ours(dtype="bfloat16"),
    "ours-int8": ours(quantize="int8"),
}


@contextmanager
def running(server: Server, folder: Path) -> Iterator[Running]:
    """Started; gone in the end."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    program = Running(server.command, folder, {**keep, "HF_HUB_OFFLINE": "1", **server.environ}, "server.log")
    try:
        yield program
    finally:
        program.stop()


@dataclass
class Stream:
    """One caller's answer: its text, and when its pieces came, in seconds since the call."""

    text: str
    times: list[float]


def ask(port: int, model: str, prompt: str, tokens: int = TOKENS) -> Stream:
    """One streamed chat, greedy."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:300]!r}")
    stream = Stream("", [])
    for line in response:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            content = chunk["choices"][0]["delta"].get("content") if chunk.get("choices") else None
            if content:
                stream.text += content
                stream.times.append(time.perf_counter() - begun)
    connection.close()
    return stream


def prompt_of(caller: int) -> str:
    return f"Write a long story about {SUBJECTS[caller % len(SUBJECTS)]}."


def load(port: int, model: str, callers: int, count: Callable[[str], int]) -> dict[str, float]:
    """All callers at once: tokens a second of all together, and the median time to the first piece of an answer."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        streams = list(pool.map(lambda caller: ask(port, model, prompt_of(caller)), range(callers)))
    seconds = time.perf_counter() - begun
    tokens = sum(count(stream.text) for stream in streams)
    return {"tokens_per_second": tokens / seconds, "first_token_seconds": median(stream.times[0] for stream in streams)}


def until_it_answers(port: int, model: str) -> None:
    """Loads the model, too."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask(port, model, "Hello", 4)
            return
        except (OSError, RuntimeError, IndexError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def measure_speed(name: str, weights: Path, rounds: int) -> dict[str, Any]:
    """Each number of callers, `rounds` times; the medians."""
    count = token_counter(weights)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(weights, free_port(), Path(folder))
        server = SYSTEMS[name](site)
        with running(server, site.folder):
            until_it_answers(site.port, server.model)
            samples = {
                callers: [load(site.port, server.model, callers, count) for _ in range(rounds)] for callers in CALLERS
            }
    return {
        str(callers): {key: median(one[key] for one in taken) for key in taken[0]} for callers, taken in samples.items()
    }


def measure_generate(weights: Path, rounds: int) -> dict[str, Any]:
    """`model.generate` called directly, one sequence, in a process of its own."""
    command = [sys.executable, "-m", "bench.local_models", "--generate", str(weights), "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {"1": {"tokens_per_second": float(done.stdout.split()[-1])}}


def generate(weights: Path, rounds: int) -> float:
    """Tokens a second, the prompt's own time included, as for a server."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": prompt_of(0)}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)

    def once(tokens: int) -> float:
        begun = time.perf_counter()
        made = model.generate(**prompt, max_new_tokens=tokens, do_sample=False)
        return float((made.shape[1] - prompt["input_ids"].shape[1]) / (time.perf_counter() - begun))

    once(4)
    return median(once(TOKENS) for _ in range(rounds))


def token_counter(weights: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def measure_gap(weights: Path) -> dict[str, float]:
    """The 99th percentile of the gaps in an echo stream of the same worker: alone, and while eight callers generate and
    another model is loaded. In milliseconds; the echo's own pause is in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        site = Site(weights, free_port(), Path(folder))
        rows: list[dict[str, Any]] = [
            {"name": "smol", "hf_repo": str(weights), "quantize": "int8"},
            {"name": "other", "hf_repo": str(weights), "dtype": "float32"},
            {"name": "echo", "kind": "echo", "delay": ECHO_PAUSE},
        ]
        with running(our_server(site, rows), site.folder):
            until_it_answers(site.port, "smol")
            alone = echo_gap(site.port)
            is_over = threading.Event()

            def call(caller: int) -> None:
                while not is_over.is_set():
                    ask(site.port, "smol", prompt_of(caller))

            with ThreadPoolExecutor(9) as pool:
                busy = [pool.submit(call, caller) for caller in range(8)]
                loading = pool.submit(ask, site.port, "other", "Hello", 4)
                beside = echo_gap(site.port)
                is_over.set()
                loading.result()
                for caller in busy:
                    caller.result()
    return {"alone_ms": alone, "beside_ms": beside, "grown_ms": beside - alone}


def echo_gap(port: int) -> float:
    words = " ".join(["word"] * int(GAP_SECONDS / ECHO_PAUSE))
    times = ask(port, "echo", words, 100_000).times
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[int(len(gaps) * 0.99)] * 1000


def measure_memory(weights: Path) -> dict[str, Any]:
    """Proportional set sizes of all processes after each worker had calls, and of the largest, with 1 and 4 workers."""
    found: dict[str, Any] = {}
    for workers in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            site = Site(weights, free_port(), Path(folder))
            server = our_server(site, [{"name": "smol", "hf_repo": str(weights), "dtype": "float32"}], workers)
            with running(server, site.folder) as program:
                until_it_answers(site.port, "smol")
                load(site.port, "smol", 16, len)
                memory = program.memory()
        found[str(workers)] = {"all_mb": memory["tree"] / 1e6, "largest_mb": memory["worker"] / 1e6}
    return found


def find_weights() -> Path:
    """The packaged model, unpacked."""
    from openai_compat.sidecars.huggingface.models.bundled_models import entries
    from openai_compat.sidecars.huggingface.models.gguf import to_safetensors

    row = entries()[0]
    return to_safetensors(Path(row["hf_repo"]), row["gguf_file"], row["name"], print)


def main() -> None:
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what has been started is stopped
    if arguments.generate:
        print(generate(arguments.generate, arguments.rounds))
        return
    weights = find_weights()
    file = RESULTS / "local.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() and arguments.only else {}
    result["machine"] = describe_hardware()
    tasks: dict[str, Callable[[], Any]] = {
        "generate": lambda: measure_generate(weights, arguments.rounds),
        **{name: lambda name=name: measure_speed(name, weights, arguments.rounds) for name in SYSTEMS},  # type: ignore[misc]
        "gap": lambda: measure_gap(weights),
        "memory": lambda: measure_memory(weights),
    }
    for name, measure in tasks.items():
        if not arguments.only or name in arguments.only:
            print(f"{name} ...", flush=True)
            result[name] = {"taken": time.strftime("%Y-%m-%d"), "load_before": os.getloadavg()[0], "figures": measure()}
            print(json.dumps(result[name]["figures"]), flush=True)
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(result, indent=2) + "\n")
            file.with_suffix(".md").write_text(to_markdown(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.local_models", description="Measure local models.")
    parser.add_argument("--only", action="append", help="a system, or generate, gap, memory; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
