"""Configuration of gunicorn for `wsgi:app`, which gunicorn finds by this file's name."""

from runpy import run_module

globals().update(run_module("openai_compat.server.gunicorn_conf"))
