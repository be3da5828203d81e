"""Page with the figures of the local-model benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.compare.plots import Line, draw_lines

NAMES: Final = {
    "generate": "`model.generate`, called directly",
    "transformers-serve": "`transformers serve`",
    "transformers-serve-continuous": "`transformers serve --continuous-batching`",
    "ours-float32": "this server, `dtype: float32`",
    "ours-bfloat16": "this server, `dtype: bfloat16`",
    "ours-int8": "this server, `quantize: int8`",
}
PLOTTED: Final = {
    "transformers-serve-continuous": ("transformers serve", "#d9534f"),
    "ours-int8": ("this server, int8", "#e8a33d"),
}
"""Systems of the plot, with their names there and their colours."""
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
    fewer = ", with one thread fewer than cores"
    for key, threads in (("llama-cpp", ""), ("llama-cpp-fewer-threads", fewer)):
        if key in result:
            parts.append(_llama_cpp(result[key], threads))
    if "long-prompt" in result:
        parts.append(_long_prompt(result["long-prompt"]["figures"]))
    for key, model in (
        ("gap", "`quantize: int8`"),
        ("llama-cpp-gap", "`kind: llama_cpp`"),
        ("llama-cpp-fewer-threads-gap", f"`kind: llama_cpp`{fewer}"),
    ):
        if key in result:
            parts.append(_gap(model, result[key]["figures"]))
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


def _llama_cpp(measured: Mapping[str, Any], threads: str) -> str:
    """Return the figures of this server beside llama.cpp's own, whose rounds alternate."""
    figures = measured["figures"]
    lines = [
        f"`kind: llama_cpp` (Q4_1 weights) beside llama.cpp's own server with the same parameters{threads}, in "
        f"alternating rounds. Tokens a second of all clients. Load before: {measured['load_before']:.1f}.\n",
        "| | 1 client | 8 clients | 16 clients |",
        "|---|---|---|---|",
    ]
    for mode in ("streamed", "whole"):
        rows = [figures[mode][clients] for clients in CLIENTS]
        for key, name in (("own", "llama.cpp's own server"), ("ours", "this server")):
            lines.append(f"| {name}, {mode} | {' | '.join(f'{row[key]:.1f}/s' for row in rows)} |")
        lines.append(f"| ratio, {mode} | {' | '.join(format(row['ratio'], '.3f') for row in rows)} |")
    cost = [figures["cpu"][clients] for clients in CLIENTS]
    shares = (f"{row['gateway'] / (row['gateway'] + row['llama_cpp']):.1%}" for row in cost)
    lines.append(f"| share of this server's CPU that is not llama.cpp's, streamed | {' | '.join(shares)} |")
    first = figures["first_token_ms"]
    lines.append(
        f"\nTime to first token of one caller: {first['own']:.1f} ms of its own server, {first['ours']:.1f} ms of this "
        f"server: {first['added']:+.1f} ms.\n"
    )
    return "\n".join(lines)


def _long_prompt(figures: Mapping[str, Mapping[str, float]]) -> str:
    ours, own = figures["ours"], figures["own"]
    return (
        "A prompt of 1,500 words beside another client's stream: the stream stops for at most "
        f"{ours['longest_gap_seconds']:.2f} s with this server and {own['longest_gap_seconds']:.2f} s with llama.cpp's "
        f"own, and the prompt takes {ours['prompt_seconds']:.1f} and {own['prompt_seconds']:.1f} s.\n"
    )


def draw_speed(result: Mapping[str, Any]) -> str:
    """Return a plot of the tokens a second over the number of clients."""
    lines = [
        Line(name, [(float(n), figures[n]["tokens_per_second"]) for n in CLIENTS], colour)
        for (name, colour), figures in ((PLOTTED[key], result[key]["figures"]) for key in PLOTTED if key in result)
    ]
    if "llama-cpp" in result:
        streamed = result["llama-cpp"]["figures"]["streamed"]
        for key, name, colour in (("own", "llama.cpp", "#7f8c8d"), ("ours", "this server, llama_cpp", "#0b7285")):
            lines.append(Line(name, [(float(n), streamed[n][key]) for n in CLIENTS], colour))
    return (
        draw_lines("Tokens a second of all clients, SmolLM2-135M", lines, [float(n) for n in CLIENTS]) if lines else ""
    )


def _gap(model: str, figures: Mapping[str, float]) -> str:
    own = figures.get("beside_own_server_ms")
    return (
        f"An echo stream of a chunk every 20 ms through the same worker as a model with {model}, 99th percentile of "
        f"its gaps: {figures['alone_ms']:.1f} ms alone, {figures['beside_ms']:.1f} ms while eight clients generate and "
        "another model is loaded"
        + (f", {own:.1f} ms while eight clients call llama.cpp's own server on the same cores" if own else "")
        + ".\n"
    )


def _memory(figures: Mapping[str, Mapping[str, float]]) -> str:
    one, four = figures["1"], figures["4"]
    return (
        f"Memory (proportional set size) with the model in float32 (538 MB of weights): {one['all_mb']:.0f} MB with "
        f"one worker, {four['all_mb']:.0f} MB with four; the engine alone {one['largest_mb']:.0f} and "
        f"{four['largest_mb']:.0f} MB.\n"
    )
