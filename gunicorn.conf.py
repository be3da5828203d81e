"""How gunicorn serves `wsgi:app`; it finds this file by itself."""

from openai_compat.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads every name
