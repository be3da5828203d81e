"""Every fault of docs/guides/routing.md's table, each on routes that mend it in another way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SPARE: Final = {"fallbacks": ["spare"], "cooldown": 0, "longest_wait": 0.3}
SHY: Final = {"fallbacks": ["spare"], "cooldown": 1, "longest_wait": 0.3}
"""The same with a cooldown, so that most of its calls go past the fault."""
CONTINUES: Final = {"midstream": "continue", "cooldown": 0, "longest_wait": 0.3}
SILENT: Final = {"timeout": {"first_token": 0.5, "idle": 0.5}}

BEFORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "fault-status:code=429,retry_after=0.1": {},
    "fault-status:code=429,retry_after=60": {},
    "fault-status:code=429": {},
    "fault-status:code=503": {},
    "fault-status:code=500": {},
    "fault-status:code=502": {},
    "fault-quota": {},
    "fault-html-error": {},
    "fault-reset-before": {},
    "fault-close-before": {},
    "fault-empty": {},
    "fault-bad-json": {},
    "fault-hang": SILENT,
    "fault-hang-headers": SILENT,
    "fault-slow-first:delay=5": SILENT,
    "fault-slow-first:delay=0.2": SILENT,
    "fault-cut:after=1": {},
    "fault-error-in-stream:after=1": {},
    "fault-context-length": {"context_window": 8000},
}
"""What happens before the first piece: another answers, whatever it is."""
WITHIN: Final[Mapping[str, Mapping[str, Any]]] = {
    "fault-cut": {},
    "fault-cut-mid-event": {},
    "fault-reset": {},
    "fault-truncated-length": {},
    "fault-stall": SILENT,
    "fault-error-in-stream": {},
}
"""What breaks in the middle."""
WHOLE: Final = ("mock-model", "fault-no-done", "fault-no-end", "fault-bad-json-event", "fault-comments", "fault-crlf")
"""What is whole, and unusual."""
TOLD: Final = ("fault-content-filter", "fault-status:code=400", "fault-status:code=401", "fault-status:code=403")
"""What is the client's, or the operator's, to mend."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model with a fault. `may_fail` tells whether an error is a right answer to a whole call, and to a stream."""

    name: str
    fault: str
    keys: Mapping[str, Any]
    may_fail: tuple[bool, bool] = (False, False)
    must_fail: bool = False


def all_cases() -> list[Case]:
    cases = []
    for fault, keys in BEFORE.items():
        cases += [Case(f"{fault}/spare", fault, {**SPARE, **keys}), Case(f"{fault}/shy", fault, {**SHY, **keys})]
    for fault, keys in WITHIN.items():
        cases += [
            Case(f"{fault}/spare", fault, {**SPARE, **keys}, may_fail=(False, True)),
            Case(f"{fault}/on", fault, {**CONTINUES, **keys, "fallbacks": ["goes-on"]}),
            Case(f"{fault}/anew", fault, {**CONTINUES, **keys, "fallbacks": ["spare"]}),
            Case(f"{fault}/other", fault, {**CONTINUES, **keys, "fallbacks": ["other"]}, may_fail=(False, True)),
        ]
    cases += [Case(f"{fault}/spare", fault, SPARE) for fault in WHOLE]
    cases += [Case(f"{fault}/spare", fault, SPARE, may_fail=(True, True), must_fail=True) for fault in TOLD]
    return [*cases, Case("nobody/spare", "", {**SPARE, "base_url": "http://127.0.0.1:1/v1"})]


def write_models(path: Path, upstream: str) -> None:
    """The models file: a row for each case, and those that they fall back to."""

    def row(name: str, model: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        key = {"api_key_env": "UPSTREAM_KEY"}
        return {"name": name, "kind": "openai", "base_url": upstream, "upstream_model": model, **key, **keys}

    rows = [row(case.name, case.fault, case.keys) for case in all_cases()]
    rows.append(row("spare", "spare", {"context_window": 100_000}))
    rows.append(row("goes-on", "mock-prefill", {"prefill": True}))
    rows.append(row("other", "mock-model:prefix=Well. ", {}))
    path.write_text(json.dumps(rows))
