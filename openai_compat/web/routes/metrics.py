"""Metrics at `GET /metrics`, in Prometheus' text format or in OpenMetrics'."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from flask import Blueprint, Response
from werkzeug.datastructures import MIMEAccept

from openai_compat.core.errors import NotFoundError
from openai_compat.core.settings import METRICS_PATH, Settings
from openai_compat.web.administration import require_admin_key
from openai_compat.web.cross_site import reject_foreign_pages
from openai_compat.web.json_response import BytesResponse
from openai_compat.web.request_context import current_request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Format = Literal["text", "openmetrics"]
Render = Callable[[Format], tuple[bytes, str]]
Check = Callable[["WSGIEnvironment"], None]

OPENMETRICS: Final = "application/openmetrics-text"
OFF: Final = "Metrics are off. Set ADMIN_API_KEY to read them with this key, or METRICS_PORT for a port of their own."


def metrics_blueprint(render: Render, settings: Settings) -> Blueprint:
    """Return the blueprint of the metrics, which need the admin key unless they have a port of their own.

    `render` returns the text in a format, and its content type.
    """
    blueprint = Blueprint("metrics", __name__)
    if settings.metrics_port is None:
        blueprint.before_request(require_admin_key(settings.admin_api_key, OFF))

    @blueprint.get(METRICS_PATH)
    def metrics() -> Response:
        accepted = current_request().accept_mimetypes
        is_preferred = _quality(accepted, OPENMETRICS) > _quality(accepted, "text/plain")
        text, content_type = render("openmetrics" if is_preferred else "text")
        return BytesResponse(text, 200, {"content-type": content_type, "cache-control": "no-store"})

    return blueprint


def _quality(accepted: MIMEAccept, kind: str) -> float:
    """Return the quality of a media type, which Prometheus names with a version."""
    return max((quality for value, quality in accepted if value.partition(";")[0] == kind), default=0.0)


def separate_metrics(port: int, check: Check) -> Check:
    """Return a check of requests by which the metrics are on `port` alone, and nothing else is.

    Requests on other ports are passed to `check`. A monitoring system may call `port` under any name.
    """
    own_port = str(port)
    check_page = reject_foreign_pages((), ())

    def check_port(environ: WSGIEnvironment) -> None:
        is_metrics = environ["PATH_INFO"].rstrip("/") == METRICS_PATH
        if (environ["SERVER_PORT"] == own_port) is not is_metrics:
            raise NotFoundError(f"Invalid URL ({environ['REQUEST_METHOD']} {environ['PATH_INFO'].replace(' ', '%20')})")
        (check_page if is_metrics else check)(environ)

    return check_port
