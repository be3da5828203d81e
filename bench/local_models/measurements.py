"""Speed, fairness and memory of local models."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.paths import ROOT
from bench.processes import free_port

from .servers import SYSTEMS, Site, our_server, running

CLIENTS: Final = (1, 8, 16)
TOKENS: Final = 48
"""Tokens of each answer."""
START_TIMEOUT: Final = 240
SUBJECTS: Final = (
    "a lighthouse", "the sea", "a train", "bread", "the moon", "a violin", "rain", "an old map",
    "a market", "winter", "a bridge", "tea", "a library", "the desert", "a clock", "birds",
)  # fmt: skip


@dataclass
class StreamedAnswer:
    """Text of one streamed answer and the times at which its chunks arrived, in seconds since the request."""

    text: str
    times: list[float]


def chat(port: int, model: str, prompt: str, tokens: int = TOKENS) -> StreamedAnswer:
    """Stream one greedy chat.

    Raises:
        OSError: the server cannot be reached.
        RuntimeError: the status is not 200.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT)
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:300]!r}")
    answer = StreamedAnswer("", [])
    for line in response:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            content = chunk["choices"][0]["delta"].get("content") if chunk.get("choices") else None
            if content:
                answer.text += content
                answer.times.append(time.perf_counter() - started)
    connection.close()
    return answer


def prompt_of(client: int) -> str:
    return f"Write a long story about {SUBJECTS[client % len(SUBJECTS)]}."


def load(port: int, model: str, clients: int, count: Callable[[str], int]) -> dict[str, float]:
    """Run concurrent chats and return the tokens a second of all together and the median time to first token."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda client: chat(port, model, prompt_of(client)), range(clients)))
    seconds = time.perf_counter() - started
    tokens = sum(count(answer.text) for answer in answers)
    return {"tokens_per_second": tokens / seconds, "first_token_seconds": median(answer.times[0] for answer in answers)}


def wait_until_ready(port: int, model: str) -> None:
    """Chat until the server answers, which also loads the model. Raise the last error after `START_TIMEOUT` seconds."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            chat(port, model, "Hello", 4)
            return
        except (OSError, RuntimeError, IndexError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def measure_speed(name: str, weights: Path, rounds: int) -> dict[str, Any]:
    """Return the medians of `rounds` rounds for each number of clients."""
    count = token_counter(weights)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(weights, free_port(), Path(folder))
        server = SYSTEMS[name](site)
        with running(server, site.folder):
            wait_until_ready(site.port, server.model)
            samples = {
                clients: [load(site.port, server.model, clients, count) for _ in range(rounds)] for clients in CLIENTS
            }
    return {
        str(clients): {key: median(sample[key] for sample in taken) for key in taken[0]}
        for clients, taken in samples.items()
    }


def measure_generate(weights: Path, rounds: int) -> dict[str, Any]:
    """Return the speed of `model.generate` for one sequence, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.local_models", "--generate", str(weights), "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {"1": {"tokens_per_second": float(done.stdout.split()[-1])}}


def generate(weights: Path, rounds: int) -> float:
    """Return the median tokens a second of `model.generate`, the time for the prompt included as for a server."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": prompt_of(0)}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)

    def run(tokens: int) -> float:
        started = time.perf_counter()
        output = model.generate(**prompt, max_new_tokens=tokens, do_sample=False)
        return float((output.shape[1] - prompt["input_ids"].shape[1]) / (time.perf_counter() - started))

    run(4)
    return median(run(TOKENS) for _ in range(rounds))


def token_counter(weights: Path) -> Callable[[str], int]:
    """Return a function that counts tokens with the model's tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def measure_memory(weights: Path) -> dict[str, Any]:
    """Return proportional set sizes with 1 and 4 workers, of all processes and of the largest, after 16 chats."""
    found: dict[str, Any] = {}
    for workers in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            site = Site(weights, free_port(), Path(folder))
            server = our_server(site, [{"name": "smol", "hf_repo": str(weights), "dtype": "float32"}], workers)
            with running(server, site.folder) as processes:
                wait_until_ready(site.port, "smol")
                load(site.port, "smol", 16, len)
                memory = processes.memory()
        found[str(workers)] = {"all_mb": memory["tree"] / 1e6, "largest_mb": memory["worker"] / 1e6}
    return found
