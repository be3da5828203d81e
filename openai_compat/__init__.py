"""OpenAI's REST API in front of any model.

    from openai_compat import create_app
    app = create_app()          # a WSGI application, configured by the environment

Importing this package loads nothing heavy: `create_app` brings Flask in when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.version import __version__

if TYPE_CHECKING:
    from flask import Flask

    from openai_compat.core.settings import Settings

__all__ = ["__version__", "create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application for `settings`, or for the environment's when none are given.

    Raises:
        ConfigurationError: with every wrong setting and every wrong row of the models file at once.
    """
    from .app import create_app as create

    return create(settings)
