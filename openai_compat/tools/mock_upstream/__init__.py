"""Mock of the APIs of OpenAI and Anthropic with fault injection, `python -m openai_compat mock-upstream`.

It answers as they do, with the same bytes for the same request. The model's name selects a fault. `mock-model` is
healthy, `fault-cut` ends a stream early, `fault-status:code=429,times=1` fails once. `faults.py` has the table of all
faults, `options.py` the options after the colon.

Only `run` imports gevent and the server.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9001, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--api-key", default=None, help="return 401 for requests without this key")
    parser.add_argument("--chunks", type=int, default=0, help="chunks in an answer (default: one for each word)")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between two chunks (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM and return the exit code."""
    from .options import Options
    from .server import serve

    defaults = Options(chunks=arguments.chunks, delay=arguments.delay)
    return serve(arguments.host, arguments.port, arguments.api_key, defaults)
