"""The WSGI application object: `gunicorn wsgi:app`."""

from openai_compat import create_app

app = create_app()
