"""Admin page at `/admin`, and the endpoint that starts and ends sessions.

The page consists of static files and contains nothing that is not public. What it shows comes from `/admin/api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, redirect, send_from_directory

from openai_compat.core.errors import NotFoundError
from openai_compat.core.version import __version__
from openai_compat.web.admin_sessions import MAX_AGE, AdminSessions, check_own_page, set_cookie
from openai_compat.web.inference import read_payload
from openai_compat.web.json_response import json_response
from openai_compat.web.schemas.administration import SIGN_IN_REQUEST
from openai_compat.web.static_pages import STATIC, add_security_headers, find_assets, send_asset

DOCUMENT: Final = "admin.html"
ASSETS: Final = find_assets("admin", "uplot")
NO_STORE: Final = {"cache-control": "no-store"}


def page_blueprint(sessions: AdminSessions, features: Mapping[str, Any]) -> Blueprint:
    """Return the blueprint of the page and of its sessions. The page gets `features` when a session starts."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.get("/admin")
    def page() -> Response:
        return send_from_directory(STATIC / "admin", DOCUMENT)

    @blueprint.get("/admin/")
    def redirect_to_page() -> Any:
        return redirect("../admin")  # the page's URLs are relative to its parent

    @blueprint.get("/admin/<name>")
    def asset(name: str) -> Response:
        return send_asset(ASSETS, name)

    @blueprint.get("/admin/session")
    def get_session() -> Response:
        sessions.check()
        return _session_response(sessions.cookie() or "")

    @blueprint.post("/admin/session")
    def sign_in() -> Response:
        check_own_page()
        cookie = sessions.sign_in(read_payload(SIGN_IN_REQUEST)[1]["admin_api_key"])
        response = _session_response(cookie)
        set_cookie(response, cookie)
        return response

    @blueprint.delete("/admin/session")
    def sign_out() -> Response:
        sessions.check()
        response = json_response({"deleted": True}, headers=NO_STORE)
        set_cookie(response, "")
        return response

    def _session_response(cookie: str) -> Response:
        session = {"csrf_token": sessions.csrf_token(cookie), "seconds": MAX_AGE, "version": __version__, **features}
        return json_response(session, headers=NO_STORE)

    blueprint.after_request(add_security_headers)
    return blueprint


def refusing_blueprint() -> Blueprint:
    """Return the blueprint of a server without `ADMIN_API_KEY`, which tells how to get the page."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.get("/admin")
    def page() -> Response:
        raise NotFoundError("The admin page is off. Set ADMIN_API_KEY to use it.")

    return blueprint
