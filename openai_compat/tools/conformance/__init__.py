"""Conformance checks for any server of OpenAI's API, `python -m openai_compat conformance URL`.

Each check is a function in one of the modules here. It raises `CheckFailed` with what the server returned instead
of the expected answer. A check exists because some client breaks on other answers, as its `why` describes.
"""

from __future__ import annotations

import argparse
import json
import sys

from openai_compat.tools.progress import show_progress

UNREACHABLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("url", help="the base_url that clients use, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="a chat model, which receives about seventy short requests")
    parser.add_argument("--completion-model", help="a model for text completions (default: the same)")
    parser.add_argument("--embedding-model", help="a model for embeddings (default: the same)")
    parser.add_argument("--api-key", help="sent as a bearer token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    parser.add_argument("--origin", help="the origin of a web page that CORS should allow")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each response (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run all checks and print the report. Return 0 if none failed, 1 otherwise, 2 if the server is unreachable."""
    from .client import ConformanceClient, Target
    from .report import to_json, to_text
    from .runner import CHECKS, run_checks

    try:
        target = Target.from_arguments(arguments)
        client = ConformanceClient(target)
        client.check_reachable()
    except (OSError, ValueError) as error:
        print(f"{arguments.url} cannot be checked: {error}", file=sys.stderr)
        return UNREACHABLE
    results = run_checks(CHECKS, client, show_progress)
    show_progress("")
    print(json.dumps(to_json(target, results), indent=2) if arguments.json else to_text(target, results))
    return 1 if any(result.outcome == "failed" for result in results) else 0
