"""Looks at a deployed server from its clients' side: `python -m openai_compat doctor URL`.

What stands between (nginx, a load balancer, a CDN) can hold events back, compress them, cut what is silent, refuse
large bodies, or not tell that a client has left. Each check finds one of these out, and names the line to change.
"""

from __future__ import annotations

import argparse
import json
import sys

from openai_compat.tools.progress import show_progress

UNREACHABLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options on `parser`."""
    parser.add_argument("url", help="the API's root, as clients have it as base_url: https://llm.example.com/v1")
    parser.add_argument("--api-key", help="sent as a bearer token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    parser.add_argument(
        "--silence", type=float, default=65.0, help="seconds of silence that must not be cut (default: 65)"
    )
    parser.add_argument("--body", type=int, default=32, help="MiB that a request's body may have (default: 32)")
    parser.add_argument("--origin", help="a web page's origin that may call, such as https://app.example.com")
    parser.add_argument("--reload", metavar="COMMAND", help="what reloads nginx or the server; run under a stream")
    parser.add_argument("--reload-seconds", type=float, default=15.0, help="how long that stream runs (default: 15)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 if all is well, 1 if something is to be changed, 2 if nothing could be asked."""
    from .checks import examine
    from .results import to_json, to_text
    from .target import Target, TargetError

    try:
        patient = Target.from_arguments(arguments)
        show_progress(f"examining {patient.address}: silence is listened to for {patient.silence:g} s ...")
        findings = examine(patient)
    except (TargetError, OSError, ValueError) as error:
        show_progress("")
        print(f"{arguments.url} cannot be examined: {error}", file=sys.stderr)
        return UNREACHABLE
    show_progress("")
    print(json.dumps(to_json(patient, findings), indent=2) if arguments.json else to_text(patient, findings))
    return 1 if any(finding.outcome == "bad" for finding in findings) else 0
