"""How gunicorn serves `wsgi:app`; it finds this file by itself and reads it again at each reload."""

from runpy import run_module

globals().update(run_module("openai_compat.server.gunicorn_conf"))
