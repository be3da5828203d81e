"""Home page at `GET /`, with the models, a chat and code examples. Other clients get a JSON summary.

The page consists of static files. It uses `/v1` as any client does, with the user's own key if `API_KEYS` is set, and
contains nothing that is not public.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request, send_from_directory, url_for

from openai_compat.core.version import __version__
from openai_compat.web.json_response import json_response
from openai_compat.web.static_pages import STATIC, add_security_headers, find_assets, send_asset

DOCUMENT: Final = "home.html"
ASSETS: Final = find_assets("home")


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
        return send_asset(ASSETS, name)

    blueprint.after_request(add_security_headers)
    return blueprint


def _wants_page() -> bool:
    """Return True for browsers, which name `text/html`. Clients that accept anything, such as curl, get JSON."""
    types = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(types, default="application/json") == "text/html"


def _page() -> Response:
    return send_from_directory(STATIC / "home", DOCUMENT)


def _summary() -> dict[str, str]:
    return {
        "name": "openai-compat",
        "version": __version__,
        "api": "/v1",
        "documentation": url_for("docs.swagger_page"),
        "openapi": url_for("docs.openapi_document"),
    }
