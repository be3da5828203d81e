"""State of the engine for local models, as the engine reports it."""

from __future__ import annotations

import json
from typing import Any, Final

from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext

from . import families
from .exposition import Labels
from .families import Family

TIMEOUTS: Final = Timeouts(connect=1.0, first_byte=1.0, idle=1.0, total=2.0)
"""Timeouts for a report that the engine has at hand, within those of a scrape."""


def read_engine(resources: BackendResources) -> dict[Family, dict[Labels, list[float]]]:
    """Return the metrics of the engine. There are none while it does not run or does not answer."""
    engine = resources.engine
    if engine is None or not engine.socket_exists:
        return {}
    report = _fetch_report(resources, f"{engine.url}/report")
    if report is None:
        return {}
    models = report["models"]
    return {
        families.ENGINE_MEMORY: {(): [float(report["memory_bytes"])]},
        families.MODEL_LOADED: {(name,): [float(model["is_loaded"])] for name, model in models.items()},
        families.MODEL_CALLS: {(name,): [float(model["calls"])] for name, model in models.items()},
        families.MODEL_MEMORY: {(name,): [float(model["memory_bytes"])] for name, model in models.items()},
    }


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
