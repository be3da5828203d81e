"""Durable objects of clients, such as responses, conversations and chat completions.

SQLAlchemy is imported when the first call needs it, because it takes 15 MB of a worker's memory, and PostgreSQL's
driver another 10 MB.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from openai_compat.core.errors import StorageReadOnlyError, StorageUnavailableError

from .gentle_import import import_gently
from .location import Location, locate
from .native_thread import NativeThread

if TYPE_CHECKING:
    from .accounts import AccountStore
    from .adjustments import AdjustmentStore
    from .calls import CallStore
    from .completions import CompletionStore
    from .conversations import ConversationStore, PipelineConversationStore
    from .leases import LeaseStore
    from .opened import Stores
    from .responses import ResponseStore
    from .usage import UsageStore
    from .usage_sums import UsageReader


OPENING_DELAY: Final = 2.0
"""Seconds after the start of a worker, whose first calls would compete with the imports."""
POSTGRES_MODULES: Final = ("psycopg", "sqlalchemy.dialects.postgresql.psycopg")
"""Modules that SQLAlchemy would import in the worker's own thread when it opens the database."""


class Storage:
    """The stores of one application. Their first use imports the libraries and opens the database."""

    def __init__(self, location: Location, ttl: float, max_bytes: int) -> None:
        self._location = location
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._thread: NativeThread | None = None
        self._stores: Stores | None = None
        self._is_writable = False

    @property
    def responses(self) -> ResponseStore:
        """Responses."""
        return self._open().responses

    @property
    def conversations(self) -> ConversationStore:
        """Conversations."""
        return self._open().conversations

    @property
    def pipeline_conversations(self) -> PipelineConversationStore:
        """Conversations with pipelines, by the ids that callers choose."""
        return self._open().pipeline_conversations

    @property
    def completions(self) -> CompletionStore:
        """Stored chat completions."""
        return self._open().completions

    @property
    def accounts(self) -> AccountStore:
        """Organizations, projects and keys."""
        return self._open().accounts

    @property
    def adjustments(self) -> AdjustmentStore:
        """Corrections of budgets by administrators."""
        return self._open().adjustments

    @property
    def calls(self) -> CallStore:
        """The log of calls."""
        return self._open().calls

    @property
    def usage(self) -> UsageStore:
        """Usage of calls."""
        return self._open().usage

    @property
    def usage_reader(self) -> UsageReader:
        """Sums of usage, and exports of it."""
        return self._open().usage_reader

    @property
    def leases(self) -> LeaseStore:
        """Locks that all workers share."""
        return self._open().leases

    @property
    def is_new(self) -> bool:
        """True if the database is an SQLite file that does not exist yet."""
        return self._location.is_new()

    @property
    def is_open(self) -> bool:
        """True if the database was used by this process."""
        return self._stores is not None

    @property
    def is_read_only(self) -> bool:
        """True if the data directory cannot be written, so that nothing can be stored. It was never writable before."""
        self._is_writable = self._is_writable or not self._location.is_read_only()
        return not self._is_writable

    def check(self) -> None:
        """Raise an error if the database does not answer, before a call is made whose answer must be stored.

        Raises:
            StorageUnavailableError
        """
        self._open().check()

    def open_soon(self, delay: float = OPENING_DELAY) -> None:
        """Open a database that exists in the background, so that no call waits for it.

        A server that has stored nothing yet imports no library.
        """
        if not (self.is_new or self.is_read_only):
            threading.Thread(target=self._open_later, args=(delay,), daemon=True).start()

    def _open_later(self, delay: float) -> None:
        time.sleep(delay)
        with suppress(StorageUnavailableError):  # the call that needs the database tries again
            self.check()

    def close(self) -> None:
        """Close the connections."""
        if self._stores is not None:
            self._stores.close()
        if self._thread is not None:
            self._thread.close()

    def _open(self) -> Stores:
        if self.is_read_only:
            raise StorageReadOnlyError
        if self._stores is None:
            with self._lock:
                if self._stores is None:
                    self._stores = self._load()
        return self._stores

    def _load(self) -> Stores:
        """Import the libraries in the native thread, because that takes more than 100 ms."""
        self._thread = thread = NativeThread()
        driver = POSTGRES_MODULES if self._location.path is None else ()
        module, *_ = thread.call(lambda: import_gently("openai_compat.storage.opened", *driver))
        stores: Stores = module.Stores(self._location, thread, self._ttl, self._max_bytes)
        return stores


def open_storage(database_url: str | None, data_dir: str, ttl: float, max_bytes: int) -> Storage:
    """Return the storage that the settings describe. It connects on first use.

    Raises:
        ConfigurationError: PostgreSQL needs an extra that is not installed.
    """
    return Storage(locate(database_url, data_dir), ttl, max_bytes)
