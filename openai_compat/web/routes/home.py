"""Home page at `GET /`, with the models, a chat and code examples. Other clients get a JSON summary.

The page consists of static files. It uses `/v1` as any client does, with the user's own key if `API_KEYS` is set, and
contains nothing that is not public.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, request, send_from_directory, url_for

from openai_compat.core.errors import NotFoundError
from openai_compat.core.version import __version__
from openai_compat.web.json_response import json_response

FOLDER: Final = Path(__file__).parents[1] / "static" / "home"
DOCUMENT: Final = "home.html"
ASSETS: Final = frozenset(path.name for path in FOLDER.iterdir()) - {DOCUMENT}
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    # Nothing inline, nothing from other hosts, and no script may turn text into HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def home_blueprint() -> Blueprint:
    """Return the blueprint of `GET /` and the files of the page."""
    blueprint = Blueprint("home", __name__)

    @blueprint.get("/")
    def home() -> Response:
        response = _page() if _wants_page() else json_response(_summary())
        response.vary.add("Accept")
        return response

    @blueprint.get("/home/<name>")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            raise NotFoundError(f"There is no file '{name}'.")
        return send_from_directory(FOLDER, name)

    blueprint.after_request(_add_security_headers)
    return blueprint


def _wants_page() -> bool:
    """Return True for browsers, which name `text/html`. Clients that accept anything, such as curl, get JSON."""
    types = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(types, default="application/json") == "text/html"


def _page() -> Response:
    return send_from_directory(FOLDER, DOCUMENT)


def _summary() -> dict[str, str]:
    return {
        "name": "openai-compat",
        "version": __version__,
        "api": "/v1",
        "documentation": url_for("docs.swagger_page"),
        "openapi": url_for("docs.openapi_document"),
    }


def _add_security_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response
