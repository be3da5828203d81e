"""State of the processes beside the workers, as they report it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from openai_compat.backends.haystack.sidecar_client import HaystackClient
from openai_compat.backends.resources import BackendResources
from openai_compat.backends.sidecar_client import SidecarClient
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext

from . import families
from .exposition import Labels
from .families import Family

TIMEOUTS: Final = Timeouts(connect=1.0, first_byte=1.0, idle=1.0, total=2.0)
"""Timeouts for a report that a sidecar has at hand, within those of a scrape."""

Values = dict[Labels, list[float]]


def read_sidecars(resources: BackendResources) -> dict[Family, Values]:
    """Return the metrics of the sidecars. There are none of a sidecar that does not run or does not answer."""
    reports = {
        name: report
        for name, client in _clients(resources)
        if client.socket_exists and (report := _fetch_report(resources, f"{client.url}/report")) is not None
    }
    models: dict[str, dict[str, Any]] = {}
    for report in reports.values():
        models |= report["models"]
    return {
        families.SIDECAR_MEMORY: {(name,): [float(report["memory_bytes"])] for name, report in reports.items()},
        families.MODEL_LOADED: {(name,): [float(model["is_loaded"])] for name, model in models.items()},
        families.MODEL_CALLS: {(name,): [float(model["calls"])] for name, model in models.items()},
        families.MODEL_MEMORY: {
            (name,): [float(model["memory_bytes"])] for name, model in models.items() if "memory_bytes" in model
        },
    }


def _clients(resources: BackendResources) -> Iterator[tuple[str, SidecarClient]]:
    """Yield the sidecars that the models file may need, by the value of the label `sidecar`."""
    if resources.engine is not None:
        yield "engine", resources.engine
    settings = resources.settings
    if any(entry.kind == "haystack" for entry in (*settings.entries.values(), *settings.hidden_entries.values())):
        yield "haystack", HaystackClient(settings)


def _fetch_report(resources: BackendResources, url: str) -> dict[str, Any] | None:
    context = CallContext("metrics")
    try:
        reply = resources.http_client.send("GET", url, headers={}, timeouts=TIMEOUTS, context=context)
        try:
            report: dict[str, Any] = json.loads(reply.read())
        finally:
            reply.close()
    except (OpenAICompatError, ValueError):
        return None
    return report if reply.status == 200 else None
