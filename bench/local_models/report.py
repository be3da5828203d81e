"""Page with the figures of the local-model benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NAMES: Final = {
    "generate": "`model.generate`, called directly",
    "transformers-serve": "`transformers serve`",
    "transformers-serve-continuous": "`transformers serve --continuous-batching`",
    "ours-float32": "this server, `dtype: float32`",
    "ours-bfloat16": "this server, `dtype: bfloat16`",
    "ours-int8": "this server, `quantize: int8`",
}
CLIENTS: Final = ("1", "8", "16")


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the page. Systems that were not measured are omitted."""
    parts = [
        "# Local models\n",
        "Written by `make bench-local`. `local.json` has the same figures. SmolLM2-135M-Instruct, 48 tokens for each "
        "client, greedy, streamed chat over HTTP. Tokens a second are those of all clients together, including the "
        "time for the prompts. The seconds are the median time to the first token.\n",
        _machine(result["machine"]),
        _speed(result),
    ]
    if "gap" in result:
        parts.append(_gap(result["gap"]["figures"]))
    if "memory" in result:
        parts.append(_memory(result["memory"]["figures"]))
    return "\n".join(parts)


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}.\n"
    )


def _speed(result: Mapping[str, Any]) -> str:
    lines = ["| | 1 client | 8 clients | 16 clients | load before |", "|---|---|---|---|---|"]
    for key, name in NAMES.items():
        if key in result:
            figures = result[key]["figures"]
            cells = [_cell(figures.get(clients)) for clients in CLIENTS]
            lines.append(f"| {name} | {' | '.join(cells)} | {result[key]['load_before']:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(figures: Mapping[str, float] | None) -> str:
    if figures is None:
        return "-"
    first = figures.get("first_token_seconds")
    return f"{figures['tokens_per_second']:.1f}/s" + (f", {first:.2f} s" if first is not None else "")


def _gap(figures: Mapping[str, float]) -> str:
    return (
        "An echo stream of a chunk every 20 ms through the same worker, 99th percentile of its gaps: "
        f"{figures['alone_ms']:.1f} ms alone, {figures['beside_ms']:.1f} ms while eight clients generate and another "
        f"model is loaded: {figures['grown_ms']:+.1f} ms.\n"
    )


def _memory(figures: Mapping[str, Mapping[str, float]]) -> str:
    one, four = figures["1"], figures["4"]
    return (
        f"Memory (proportional set size) with the model in float32 (538 MB of weights): {one['all_mb']:.0f} MB with "
        f"one worker, {four['all_mb']:.0f} MB with four; the engine alone {one['largest_mb']:.0f} and "
        f"{four['largest_mb']:.0f} MB.\n"
    )
