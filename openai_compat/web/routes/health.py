"""Health checks. They do not call upstreams, because a server is alive and ready even if an upstream is down."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response

from openai_compat.web.json_response import json_response


def health_blueprint() -> Blueprint:
    """Return the blueprint of `/healthz` (also `/health`), `/readyz`, and the earlier Databricks server's check."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    @blueprint.get("/healthz")
    def alive() -> Response:
        return json_response({"status": "ok"})

    @blueprint.get("/readyz")
    def ready() -> Response:
        return json_response({"status": "ready"})

    @blueprint.get("/api/v1/healthcheck")
    def healthcheck() -> Response:
        timestamp = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return json_response({"status": "healthy", "timestamp": timestamp, "service": "openai-compatible-api"})

    return blueprint
