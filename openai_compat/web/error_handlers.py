"""Error handler of all views of the server, and of requests that match no view."""

from __future__ import annotations

from flask import Flask, Response

from openai_compat.core.anthropic import VERSION_HEADER
from openai_compat.core.settings import Settings

from .anthropic_errors import to_error_response
from .errors import to_openai_response
from .request_context import current_request


def register_errors_of_both_forms(app: Flask, settings: Settings) -> None:
    """Register the error handler. Clients of Anthropic's API get its form on every path, and all others OpenAI's."""

    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        is_anthropics = VERSION_HEADER in current_request().headers
        return to_error_response(error, settings) if is_anthropics else to_openai_response(error, settings)
