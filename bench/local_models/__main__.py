"""Command line of the local-model benchmark.

make bench-local                                  everything, about 40 minutes
python -m bench.local_models --only llama-cpp     one system, its results merged into those of the last run
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine import describe_hardware
from bench.paths import RESULTS
from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_FILE, chat_folder

from .gap import echo_gap, measure_gap
from .llama_cpp import llama_model, measure_llama_cpp, own_server
from .long_prompt import measure_long_prompt
from .measurements import generate, measure_generate, measure_memory, measure_speed
from .report import draw_speed, to_markdown
from .servers import SYSTEMS


def main() -> None:
    """Measure what the arguments name, and write the results after each system."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # runs the `finally` blocks that stop the servers
    if arguments.generate:
        print(generate(arguments.generate, arguments.rounds))
        return
    if arguments.echo_gap:
        print(echo_gap(arguments.echo_gap))
        return
    weights = find_weights()
    file = RESULTS / "local.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() and arguments.only else {}
    result["machine"] = describe_hardware()
    for name, measure in _tasks(weights, arguments.rounds).items():
        if not arguments.only or name in arguments.only:
            print(f"{name} ...", flush=True)
            result[name] = {"taken": time.strftime("%Y-%m-%d"), "load_before": os.getloadavg()[0], "figures": measure()}
            print(json.dumps(result[name]["figures"]), flush=True)
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(result, indent=2) + "\n")
            file.with_suffix(".md").write_text(to_markdown(result))
            file.with_suffix(".svg").write_text(draw_speed(result))


def _tasks(weights: Path, rounds: int) -> dict[str, Callable[[], Any]]:
    gguf = chat_folder() / CHAT_FILE
    fewer = max(1, (os.cpu_count() or 1) - 1)
    return {
        "generate": partial(measure_generate, weights, rounds),
        **{name: partial(measure_speed, name, weights, rounds) for name in SYSTEMS},
        "llama-cpp": partial(measure_llama_cpp, gguf, rounds),
        "long-prompt": partial(measure_long_prompt, gguf, rounds),
        "gap": partial(measure_gap, weights, {"name": "smol", "hf_repo": str(weights), "quantize": "int8"}, rounds),
        "llama-cpp-gap": partial(measure_gap, gguf, llama_model(gguf), rounds, own_server),
        "llama-cpp-fewer-threads": partial(measure_llama_cpp, gguf, rounds, fewer),
        "llama-cpp-fewer-threads-gap": partial(
            measure_gap, gguf, llama_model(gguf, fewer), rounds, partial(own_server, threads=fewer)
        ),
        "memory": partial(measure_memory, weights),
    }


def find_weights() -> Path:
    """Return the folder of the bundled model, unpacked and converted to safetensors."""
    from openai_compat.sidecars.huggingface.models.bundled_models import entries
    from openai_compat.sidecars.huggingface.models.gguf import to_safetensors

    model = entries()[0]
    return to_safetensors(Path(model["hf_repo"]), model["gguf_file"], model["name"], print)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.local_models", description="Measure local models.")
    parser.add_argument("--only", action="append", help="a key of local.json; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement (default: %(default)s)")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--echo-gap", type=int, metavar="PORT", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
