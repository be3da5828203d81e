"""Diagnosis of a deployed server from the client's side, `python -m openai_compat doctor URL`.

A proxy between the client and the server (nginx, a load balancer, a CDN) can buffer events, compress them, close idle
connections, reject large bodies, or hide client disconnects. Each check detects one of these faults and names the line
of configuration to change.
"""

from __future__ import annotations

import argparse
import json
import sys

from openai_compat.tools.progress import show_progress

UNREACHABLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("url", help="the base_url that clients use, such as https://llm.example.com/v1")
    parser.add_argument("--api-key", help="sent as a bearer token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    parser.add_argument(
        "--silence", type=float, default=65.0, help="seconds without data that a connection must survive (default: 65)"
    )
    parser.add_argument("--body", type=int, default=32, help="MiB that a request body may have (default: 32)")
    parser.add_argument("--origin", help="the origin of a web page that CORS should allow")
    parser.add_argument("--reload", metavar="COMMAND", help="reloads nginx or the server, run during a stream")
    parser.add_argument("--reload-seconds", type=float, default=15.0, help="duration of that stream (default: 15)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run all checks and print the results. Return 0 if none failed, 1 otherwise, 2 if the server is unreachable."""
    from .checks import run_checks
    from .results import to_json, to_text
    from .target import Target, TargetError

    try:
        target = Target.from_arguments(arguments)
        show_progress(f"checking {target.base_url}, which takes {target.idle_seconds:g} s or a little longer ...")
        results = run_checks(target)
    except (TargetError, OSError, ValueError) as error:
        show_progress("")
        print(f"{arguments.url} cannot be checked: {error}", file=sys.stderr)
        return UNREACHABLE
    show_progress("")
    print(json.dumps(to_json(target, results), indent=2) if arguments.json else to_text(target, results))
    return 1 if any(result.outcome == "failed" for result in results) else 0
