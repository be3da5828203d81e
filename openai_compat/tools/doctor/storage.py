"""Check of stored objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from openai_compat.tools.http_probe import ProbeResponse

from .backend import DOCTOR_MODEL
from .results import CheckResult, failed, passed, skipped
from .target import Target

NAME: Final = "stored objects"


def check_stored_objects(target: Target) -> Sequence[CheckResult]:
    """Make a response as clients do by default, see whether it is stored, and delete it."""
    call = json.dumps({"pauses": [0]})
    response = target.send("POST", "responses", json.dumps({"model": DOCTOR_MODEL, "input": call}).encode())
    if response.status != 200:
        return [_to_failure(response)]
    made = response.json()
    if not made["store"]:
        return [
            skipped(NAME, "responses are not stored, because DATA_DIR cannot be written. A volume for it, or "
                    "DATABASE_URL, lets clients continue and retrieve them")
        ]  # fmt: skip
    deleted = target.send("DELETE", f"responses/{made['id']}")
    if deleted.status != 200:
        return [_to_failure(deleted)]
    return [passed(NAME, "a response is stored and deleted")]


def _to_failure(response: ProbeResponse) -> CheckResult:
    if response.status == 503 and b"storage_unavailable" in response.body:
        return failed(NAME, "the database does not answer, so calls without `store: false` get a 503",
                      "this server: DATABASE_URL, or the disk of DATA_DIR (the log has the reason)")  # fmt: skip
    return failed(NAME, f"a response cannot be made or deleted (status {response.status})")
