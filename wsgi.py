"""WSGI application for `gunicorn wsgi:app`."""

from openai_compat import create_app

app = create_app()
