"""How gunicorn serves `wsgi:app`; it finds this file by itself. Every number is a setting or has its reason here."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from secrets import token_hex
from typing import Any

from openai_compat.backends.huggingface.runtime_dir import open_server_folder, remove_server_folder
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import SERVER_ID_VARIABLE
from openai_compat.core.validators import to_address
from openai_compat.server.arbiter import SafeReload
from openai_compat.server.worker import SHUTDOWN_GRACE

try:
    settings = load_settings(with_models=False)
except ConfigurationError as error:
    sys.exit(str(error))

bind = to_address(settings.host, settings.port)
workers = settings.web_concurrency
# What all workers of one start or reload have in common, and find each other by (the process of the pipelines).
raw_env = [f"{SERVER_ID_VARIABLE}={token_hex(8)}"]

# A stream waits more than it works: thousands of them share a process as greenlets. Patching happens in the worker,
# so nothing may be preloaded (`requests` and `ssl` imported before it would block the whole process).
worker_class = "openai_compat.server.worker.Worker"
worker_connections = settings.worker_connections
preload_app = False


def on_starting(server: Any) -> None:
    """Gives the workers, and those of a later reload, a file in which they tell each other of upstreams that are out
    of order, where no setting names a place for it; and a folder in which they find one engine for local models, which
    ends with this process. They learn of both by the settings.
    """
    if settings.shared_state_url is None:
        server.state_folder = tempfile.mkdtemp(prefix="openai-compat-")
        os.environ["SHARED_STATE_URL"] = f"sqlite:{server.state_folder}/state"
    os.environ["LOCAL_RUNTIME_DIR"] = open_server_folder(settings.local_runtime_dir)
    # The engine inherits it: torch's threads would spin while they wait, on the cores that the workers need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def on_exit(server: Any) -> None:
    shutil.rmtree(vars(server).get("state_folder", ""), ignore_errors=True)
    remove_server_folder(os.environ["LOCAL_RUNTIME_DIR"])


def post_fork(server: Any, worker: Any) -> None:
    """A setting that gunicorn has no word for; and a stop that comes now is heard, not only when all is loaded.

    Until then the worker would take signals for the master's, and the stop would wait for it as long as for a stream.
    """
    worker.write_timeout = settings.client_write_timeout or None
    signal.signal(signal.SIGTERM, worker.handle_exit)


def post_worker_init(worker: Any) -> None:
    """Ctrl-C reaches the workers too; it is the master's to stop them, without a traceback from each.

    What the start has made stays: the collector need not look through it again and again, which held up all streams.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()


# A reload is checked first, and neither it nor a worker's end keeps the master from its work.
when_ready = SafeReload

# One file in the user's home for every server of theirs, for commands that nobody gives here.
control_socket_disable = True

# For gevent workers this is a heartbeat, not a limit on requests: a stream may take as long as it takes.
timeout = 60
# Streams under way at a reload or a stop get GRACEFUL_TIMEOUT to finish; then the rest is told why it ends, and at last
# the process is killed.
graceful_timeout = settings.graceful_timeout + SHUTDOWN_GRACE
# Longer than the 60 s for which nginx and most load balancers keep a connection: they must be the ones to close it.
keepalive = 75

# A full queue of connections that wait to be accepted, for a burst of callers.
backlog = 2048
# Long prompts in query strings do not occur; long headers do (signed cookies, tokens of single sign-on).
limit_request_line = 8190
limit_request_field_size = 16380

# The application writes one line a request itself, with its id and its tokens; gunicorn's own would double it.
accesslog = None
loglevel = "warning" if settings.log_level == "info" else settings.log_level
