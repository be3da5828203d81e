"""Chaos cases, every fault of the table in docs/guides/routing.md on routes that recover from it in different ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FALLBACK: Final = {"fallbacks": ["fallback"], "cooldown": 0, "max_retry_wait": 0.3}
COOLDOWN: Final = {"fallbacks": ["fallback"], "cooldown": 1, "max_retry_wait": 0.3}
"""The same with a cooldown, during which calls skip the faulty model."""
CONTINUE: Final = {"on_stream_break": "continue", "cooldown": 0, "max_retry_wait": 0.3}
TIMEOUTS: Final = {"timeout": {"first_token": 0.5, "first_byte": 0.5, "idle": 0.5}}

EARLY_FAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
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
    "fault-hang": TIMEOUTS,
    "fault-hang-headers": TIMEOUTS,
    "fault-slow-first:delay=5": TIMEOUTS,
    "fault-slow-first:delay=0.2": TIMEOUTS,
    "fault-cut:after=1": {},
    "fault-error-in-stream:after=1": {},
    "fault-context-length": {"context_window": 8000},
    "fault-status:code=401": {},
    "fault-status:code=403": {},
}
"""Faults before the first token. The fallback must answer."""
MIDSTREAM_FAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "fault-cut": {},
    "fault-cut-mid-event": {},
    "fault-reset": {},
    "fault-truncated-length": {},
    "fault-stall": TIMEOUTS,
    "fault-error-in-stream": {},
}
"""Faults after the first token."""
HARMLESS: Final = (
    "mock-model",
    "fault-no-done",
    "fault-no-end",
    "fault-bad-json-event",
    "fault-comments",
    "fault-crlf",
)
"""Answers that are unusual but complete."""
FATAL: Final = ("fault-content-filter", "fault-status:code=400", "fault-status:code=404", "fault-status:code=422")
"""Errors that the client must fix. They are returned without trying a fallback."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model with a fault. `may_fail` is whether an error is acceptable without streaming, and with it."""

    name: str
    fault: str
    keys: Mapping[str, Any]
    may_fail: tuple[bool, bool] = (False, False)
    must_fail: bool = False


def all_cases() -> list[Case]:
    """Return every fault on every route that suits it, and an upstream that cannot be reached."""
    cases = []
    for fault, keys in EARLY_FAULTS.items():
        cases += [
            Case(f"{fault}/fallback", fault, {**FALLBACK, **keys}),
            Case(f"{fault}/cooldown", fault, {**COOLDOWN, **keys}),
        ]
    for fault, keys in MIDSTREAM_FAULTS.items():
        cases += [
            Case(f"{fault}/fallback", fault, {**FALLBACK, **keys}, may_fail=(False, True)),
            Case(f"{fault}/prefill", fault, {**CONTINUE, **keys, "fallbacks": ["prefill"]}),
            Case(f"{fault}/restart", fault, {**CONTINUE, **keys, "fallbacks": ["fallback"]}),
            Case(f"{fault}/different", fault, {**CONTINUE, **keys, "fallbacks": ["different"]}, may_fail=(False, True)),
        ]
    cases += [Case(f"{fault}/fallback", fault, FALLBACK) for fault in HARMLESS]
    cases += [Case(f"{fault}/fallback", fault, FALLBACK, may_fail=(True, True), must_fail=True) for fault in FATAL]
    return [*cases, Case("unreachable/fallback", "", {**FALLBACK, "base_url": "http://127.0.0.1:1/v1"})]


def write_models(path: Path, upstream: str) -> None:
    """Write the models file with a model for each case and the models that they fall back to."""

    def entry(name: str, model: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        key = {"api_key_env": "UPSTREAM_KEY"}
        return {"name": name, "kind": "openai", "base_url": upstream, "upstream_model": model, **key, **keys}

    entries = [entry(case.name, case.fault, case.keys) for case in all_cases()]
    entries.append(entry("fallback", "fallback", {"context_window": 100_000}))
    entries.append(entry("prefill", "mock-prefill", {"assistant_prefill": True}))
    entries.append(entry("different", "mock-model:prefix=Well. ", {}))
    path.write_text(json.dumps(entries))
