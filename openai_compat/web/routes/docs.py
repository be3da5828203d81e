"""API documentation at `/openapi.json`, `/docs` (Swagger UI) and `/redoc`.

The scripts are files of the installed package `offapi` (Swagger UI 5 and ReDoc 3, unchanged from npm). The pages
therefore work without internet access, and their Content-Security-Policy allows requests to this server only. The
package is located but never imported, because the import reads all of its files into memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, send_from_directory, url_for

from openai_compat.core.errors import NotFoundError
from openai_compat.core.settings import ECHO_MODEL

ASSETS_PACKAGE = "offapi"
ASSETS: Mapping[str, str] = {
    "swagger-ui.css": "swagger_style.css",
    "swagger-ui.js": "swagger_bundle.js",
    "redoc.js": "redoc.js",
}
"""Files of the package that are served, by the last part of their URL."""

SECURITY_HEADERS: Mapping[str, str] = {
    # Both pages set inline styles from scripts. Nothing else is inline, and nothing is loaded from other hosts.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>OpenAI-compatible API</title>
<link rel="icon" href="data:,">
{content}
</html>
"""
SWAGGER_CONTENT = """<link rel="stylesheet" href="{style}">
</head>
<body data-document="{document}">
<div id="page"></div>
<script src="{script}"></script>
<script src="{start_script}"></script>
</body>"""
SWAGGER_START_SCRIPT = """SwaggerUIBundle({
  url: document.body.dataset.document,
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
REDOC_CONTENT = """</head>
<body>
<redoc spec-url="{document}" disable-telemetry="true"></redoc>
<script type="module" src="{script}"></script>
</body>"""


def docs_blueprint(model: str = ECHO_MODEL) -> Blueprint:
    """Return the blueprint of the three pages and their assets. The examples of the document use `model`."""
    blueprint = Blueprint("docs", __name__)

    @cache
    def document() -> str:
        from openai_compat.web.openapi.document import build_openapi  # imports apispec, which nothing else needs

        return json.dumps(build_openapi(model))

    @blueprint.get("/openapi.json")
    def openapi_document() -> Response:
        return Response(document(), mimetype="application/json")

    blueprint.add_url_rule("/docs", view_func=swagger_page)
    blueprint.add_url_rule("/redoc", view_func=redoc_page)
    blueprint.add_url_rule("/docs/assets/start.js", view_func=swagger_start_script)
    blueprint.add_url_rule("/docs/assets/<name>", view_func=asset)
    blueprint.after_request(_add_security_headers)
    return blueprint


def swagger_page() -> Response:
    return _page(
        SWAGGER_CONTENT.format(
            document=_link(".openapi_document"),
            style=_link(".asset", name="swagger-ui.css"),
            script=_link(".asset", name="swagger-ui.js"),
            start_script=_link(".swagger_start_script"),
        )
    )


def redoc_page() -> Response:
    return _page(REDOC_CONTENT.format(document=_link(".openapi_document"), script=_link(".asset", name="redoc.js")))


def _link(endpoint: str, **values: Any) -> str:
    """Return the URL of an endpoint for an attribute. A proxy may have put any text before the path (SCRIPT_NAME)."""
    return escape(url_for(endpoint, **values))


def swagger_start_script() -> Response:
    """Serve the start script as a file, because the pages allow no inline script."""
    return Response(SWAGGER_START_SCRIPT, mimetype="text/javascript")


def asset(name: str) -> Response:
    """Serve a file of the package, with an ETag."""
    package = find_spec(ASSETS_PACKAGE)
    if name not in ASSETS or package is None or package.origin is None:
        raise NotFoundError(f"There is no asset '{name}'.")
    return send_from_directory(Path(package.origin).parent, ASSETS[name])


def _page(content: str) -> Response:
    return Response(PAGE.format(content=content), mimetype="text/html")


def _add_security_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response
