"""All checks in their order, and the runner."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .checks_chat import CHAT
from .checks_completions import COMPLETIONS
from .checks_embeddings import EMBEDDINGS
from .checks_errors import ERRORS, HEADERS
from .checks_messages import MESSAGES
from .checks_models import MODELS
from .checks_responses import RESPONSES
from .checks_streams import CHUNKS, SSE
from .checks_tools import TOOLS
from .client import CheckFailed, CheckSkipped, ConformanceClient
from .registry import Check

Outcome = Literal["passed", "failed", "skipped"]
SECTIONS: Final = (ERRORS, HEADERS, CHAT, SSE, CHUNKS, TOOLS, COMPLETIONS, EMBEDDINGS, MODELS, RESPONSES, MESSAGES)
CHECKS: Final = tuple(check for section in SECTIONS for check in section.checks)


@dataclass(frozen=True)
class Result:
    """Outcome of a check. `detail` is what the server returned, or why the check was skipped."""

    check: Check
    outcome: Outcome
    detail: str
    seconds: float


def run_checks(checks: Sequence[Check], client: ConformanceClient, show: Callable[[str], None]) -> list[Result]:
    """Run the checks in order and return their results. Call `show` with a progress line before each one."""
    results = []
    for number, check in enumerate(checks, 1):
        show(f"{number}/{len(checks)} {check.title}")
        results.append(_run(check, client))
    return results


def _run(check: Check, client: ConformanceClient) -> Result:
    started = time.monotonic()
    outcome: Outcome = "passed"
    detail = ""
    try:
        check.run(client)
    except CheckSkipped as reason:
        outcome, detail = "skipped", str(reason)
    except CheckFailed as error:
        outcome, detail = "failed", str(error)
    except (OSError, http.client.HTTPException) as error:
        outcome, detail = "failed", f"no response: {error or type(error).__name__}"
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        # The response lacks a key that the check reads, or has another type there.
        outcome, detail = "failed", f"unexpected structure: {type(error).__name__}: {error}"
    return Result(check, outcome, detail, time.monotonic() - started)
