"""OpenAI's REST API in front of any model.

    from openai_compat import create_app
    app = create_app()          # a WSGI application, configured by the environment

Importing this package is cheap, because `create_app` imports Flask when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core import former_names
from .core.version import __version__

if TYPE_CHECKING:
    from flask import Flask

    from openai_compat.core.settings import Settings

__all__ = ["__version__", "create_app"]

former_names.install()


def create_app(settings: Settings | None = None) -> Flask:
    """Return the WSGI application for `settings`, which are read from the environment by default.

    Raises:
        ConfigurationError: Settings or entries of the models file are invalid. The error lists every problem.
    """
    from .app import create_app as create

    return create(settings)
