"""Asks any server that speaks OpenAI's API what its clients depend on: `python -m openai_compat conformance URL`.

Each question is a function in one of the modules here; a wrong answer raises `CheckFailed` with what came instead. The
answers add up to a scorecard. A question is in because a client that gets it wrong breaks: `WHY` beside each says how.
"""

from __future__ import annotations

import argparse
import json
import sys

from openai_compat.tools.progress import show_progress

UNREACHABLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options on `parser`."""
    parser.add_argument("url", help="the API's root, as clients have it as base_url: http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="a model that chats; it is asked about fifty short questions")
    parser.add_argument("--completion-model", help="one that completes text (default: the same)")
    parser.add_argument("--embedding-model", help="one that embeds text (default: the same)")
    parser.add_argument("--api-key", help="sent as a bearer token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    parser.add_argument("--origin", help="a web page's origin that the server should allow, to ask about CORS")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each answer (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the scorecard as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 if every answer was right, 1 if one was wrong, 2 if there was nobody to ask."""
    from .client import ConformanceClient, Target
    from .report import to_json, to_text
    from .runner import QUESTIONS, ask_all

    try:
        subject = Target.from_arguments(arguments)
        interview = ConformanceClient(subject)
        interview.check_reachable()
    except (OSError, ValueError) as error:
        print(f"{arguments.url} cannot be asked: {error}", file=sys.stderr)
        return UNREACHABLE
    results = ask_all(QUESTIONS, interview, show_progress)
    show_progress("")
    print(json.dumps(to_json(subject, results), indent=2) if arguments.json else to_text(subject, results))
    return 1 if any(result.outcome == "wrong" for result in results) else 0
