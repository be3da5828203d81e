"""Configuration of gunicorn for `wsgi:app`.

Every number is a setting or has its reason beside it.
"""

import gc
import os
import signal
import sys
from math import inf
from secrets import token_hex
from typing import Any

from openai_compat.backends.runtime_dir import (
    STATE_PREFIX,
    open_server_folder,
    open_temporary_folder,
    remove_server_folder,
)
from openai_compat.config.environment import load_settings
from openai_compat.core.cpu_limit import find_cpu_limit
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import METRICS_SLOT_VARIABLE, SERVER_ID_VARIABLE
from openai_compat.core.validators import to_address
from openai_compat.server.arbiter import SafeReload
from openai_compat.server.client_reader import ReadLimits
from openai_compat.server.worker import SHUTDOWN_GRACE
from openai_compat.state.worker_slots import SlotAssignment
from openai_compat.storage.location import locate
from openai_compat.storage.migrate import MigrationError, is_migrated, migrate

try:
    settings = load_settings(with_models=False)
except ConfigurationError as error:
    sys.exit(str(error))

bind = [to_address(settings.host, settings.port)]
if settings.metrics_port is not None:
    bind.append(to_address(settings.metrics_host or settings.host, settings.metrics_port))
# Rounds, some 100 µs, in which a thread of llama.cpp or torch waits for its next part of a token before it sleeps.
# With threads that sleep at once, a single caller gets a third of the tokens. Threads that spin for 300,000 rounds,
# libgomp's default, take the cores that the workers need. The engines inherit it.
OPENMP_SPINS = "10000"
workers = settings.web_concurrency
# An id that all workers of one start or reload share. It names the process of the pipelines.
raw_env = [f"{SERVER_ID_VARIABLE}={token_hex(8)}"]

# A stream mostly waits, so thousands of them share a process as greenlets. gevent patches the standard library in the
# worker, so nothing may be preloaded. `requests` and `ssl`, imported before that, would block the complete process.
worker_class = "openai_compat.server.worker.Worker"
worker_connections = settings.worker_connections
preload_app = False


def on_starting(server: Any) -> None:
    """Create the resources that all workers share, now and after a reload.

    They are a file for the state of upstreams, unless `SHARED_STATE_URL` is set, a random secret, unless `SECRET_KEY`
    is set, and the runtime directory of the engine for local models. They are passed to the workers as settings. The
    memory for metrics is passed to each worker when it starts.
    """
    server.metrics_slots = SlotAssignment()
    if settings.shared_state_url is None:
        server.state_folder = open_temporary_folder(STATE_PREFIX)
        os.environ["SHARED_STATE_URL"] = f"sqlite:{server.state_folder}/state"
    if settings.secret_key is None:
        os.environ["SECRET_KEY"] = token_hex(32)
    os.environ["LOCAL_RUNTIME_DIR"] = open_server_folder(settings.local_runtime_dir)
    migrate_database(server)
    if (limit := find_cpu_limit()) is not None:  # libgomp's default ignores the quota of a container
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)


def migrate_database(server: Any) -> None:
    """Migrate the schema before the workers start. An SQLite file is created by the first call that stores something.

    If it fails, the first worker that needs the database tries again, and calls that store nothing are answered.
    """
    location = locate(settings.database_url, settings.data_dir)
    if location.is_read_only():
        server.log.warning("nothing can be stored, because %s cannot be written (DATA_DIR)", settings.data_dir)
    elif not location.is_new() and not is_migrated(location):
        try:
            migrate(location)
        except MigrationError as error:
            server.log.warning("the database cannot be used: %s", error)


def on_exit(server: Any) -> None:
    """Delete what `on_starting` created."""
    remove_server_folder(vars(server).get("state_folder", ""))
    remove_server_folder(os.environ["LOCAL_RUNTIME_DIR"])


def pre_fork(server: Any, worker: Any) -> None:
    """Choose the slot in which the worker counts its metrics."""
    worker.metrics_slot = server.metrics_slots.take()


def child_exit(server: Any, worker: Any) -> None:
    """Take back the slot of a worker that has ended. Its counts stay."""
    server.metrics_slots.release(worker.metrics_slot)


def post_fork(server: Any, worker: Any) -> None:
    """Set the timeouts for clients and handle SIGTERM from now on.

    gunicorn installs the worker's signal handlers once the application is loaded. A stop before that would wait for the
    complete graceful timeout.
    """
    worker.write_timeout = settings.client_write_timeout or None
    worker.read_limits = ReadLimits(
        settings.request_head_timeout or inf, settings.request_body_timeout or inf, settings.request_body_min_rate
    )
    signal.signal(signal.SIGTERM, worker.handle_exit)
    os.environ[METRICS_SLOT_VARIABLE] = worker.metrics_slot


def post_worker_init(worker: Any) -> None:
    """Ignore SIGINT, exclude the loaded application from garbage collection, and start its work in the background.

    Ctrl-C reaches the workers as well as the arbiter, which stops them. A collection that scans the application's
    objects would pause all streams.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    state = _state_of(worker)
    if state is not None:
        state.storage.open_soon()
        state.metrics.start()
        if state.accounts is not None:
            state.accounts.bookkeeper.start_soon()


def worker_exit(server: Any, worker: Any) -> None:
    """Write the last numbers of a worker that ends in an orderly way."""
    state = _state_of(worker)
    if state is not None:
        state.metrics.finish()


def _state_of(worker: Any) -> Any:
    """Return the components of the application, or None if it is wrapped in WSGI middleware or was not loaded."""
    return getattr(vars(worker).get("wsgi"), "extensions", {}).get("openai_compat")


# Validates reloads, and keeps the arbiter responsive while workers drain.
when_ready = SafeReload

# The control socket is unused, and all servers of a user would share its path.
control_socket_disable = True

# For gevent workers this is the heartbeat's timeout and no limit on the duration of a request.
timeout = 60
# At a reload or a stop, running streams get GRACEFUL_TIMEOUT to finish. The others then end with an error, before the
# worker is killed.
graceful_timeout = settings.graceful_timeout + SHUTDOWN_GRACE
# Longer than the 60 s for which nginx and most load balancers keep a connection, so that they close it first.
keepalive = 75

# Length of the queue of connections to accept, for bursts.
backlog = 2048
# Headers may be long (signed cookies, tokens of single sign-on). Query strings contain no prompts.
# `request_parser.py` limits the complete head to 64 KiB.
limit_request_line = 8190
limit_request_field_size = 16380
# Headers with an underscore are dropped, also those that name a variable of WSGI (SCRIPT_NAME, REMOTE_USER). By
# default, gunicorn would accept those from a proxy on this machine, and thus from its clients.
header_map = "drop"
forwarder_headers = ""

# The application writes its own access log, which has the request id and the token counts.
accesslog = None
loglevel = "warning" if settings.log_level == "info" else settings.log_level
