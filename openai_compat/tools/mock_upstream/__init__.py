"""A fake OpenAI server that misbehaves on demand: `python -m openai_compat mock-upstream`.

It answers as OpenAI does, byte for byte the same answer for the same question, and a client chooses by the model's name
how the answer goes wrong: `mock-model` is healthy, `fault-cut` ends a stream early, `fault-status:code=429,times=1`
fails once. `faults.py` has the table of all of them, `options.py` the parameters that follow the colon.

Importing this package imports neither gevent nor the server: only `run` does.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options on `parser`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9001, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument("--api-key", default=None, help="answer 401 to requests that do not carry this key")
    parser.add_argument("--chunks", type=int, default=0, help="pieces in an answer (default: one for each word)")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between two pieces (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the process's exit code."""
    from .options import Options
    from .server import serve

    defaults = Options(chunks=arguments.chunks, delay=arguments.delay)
    return serve(arguments.host, arguments.port, arguments.api_key, defaults)
